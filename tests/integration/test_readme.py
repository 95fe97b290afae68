"""The README's Python example does what it says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from secagg.lora.reader import read_adapter
from tests.support.cohort import key_of
from tests.support.service import open_example_session, serving, tiny_adapter

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_python_example_contributes_and_writes_the_merged_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    example: dict[str, object] = {}
    exec(compile(blocks[0], str(README), "exec"), example)  # noqa: S102 - our own README
    add_mine = example["add_mine"]
    monkeypatch.chdir(tmp_path)

    async def run() -> None:
        identities = [key_of(f"id{i}") for i in range(3)]
        adapters = [tiny_adapter(tmp_path / f"adapter{i}", i) for i in range(3)]
        async with serving(tmp_path / "coordinator") as service:
            parameters = await open_example_session(service, identities, adapters[0])
            await asyncio.gather(
                *(
                    add_mine(service.address, service.key, service.tls, parameters.session, adapter, identity)
                    for adapter, identity in zip(adapters, identities, strict=True)
                )
            )

    asyncio.run(run())
    assert "3 contributions, estimated error unknown" in capsys.readouterr().out
    assert read_adapter(tmp_path / "merged", "tiny-base").tensors
