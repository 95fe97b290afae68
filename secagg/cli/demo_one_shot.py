"""What both kinds of one-shot demo sessions share: contributors upload once and leave, institutions open the sum."""

from __future__ import annotations

from pathlib import Path

from secagg.cli.demo_course import Course, Running
from secagg.cli.demo_plan import masked_value_bits_for, max_contributors
from secagg.cli.demo_site import CERTIFICATE_NAMES
from secagg.identity.tls import CERTIFICATE_FILE, create_certificate
from secagg.identity.transport import TlsFiles
from secagg.runtime.clock import SystemClock


class OneShotCourse(Course):
    """Everybody who uploads has left before the sum is opened."""

    def _value_bits(self, dimension: int) -> int:
        return masked_value_bits_for(max_contributors(self.plan), dimension)

    def _own_options(self) -> dict[str, object]:
        return {"--protocol": "one-shot"}

    async def _until_all_left(self, running: Running) -> None:
        await super()._until_all_left(running)
        count = len(self.plan.contributors)
        self._say(f"{count} contributors have uploaded and left, with their receipts: their processes have ended")


def new_home(home: Path) -> TlsFiles:
    """Make the directory of an institution's service, and its certificate in it."""
    home.mkdir(mode=0o700)
    files = create_certificate(home, CERTIFICATE_NAMES, SystemClock().now_s(), valid_days=1)
    return TlsFiles(files.certificate, files.private_key)


def certificate_in(home: Path) -> str:
    """The certificate that ``new_home`` made, in PEM."""
    return (home / CERTIFICATE_FILE).read_text(encoding="ascii")
