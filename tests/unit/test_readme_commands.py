"""The commands that README.md shows are commands, with the options that they have."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from secagg.cli import main
from secagg.crypto.notes import log_key
from tests.support.cohort import key_of
from verifier import cli as verifier_cli

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
KEYS = ("KEY", "REGISTRAR_KEY", "FINGERPRINT", "A_KEY", "B_KEY", "D_KEY", "ATTESTOR_KEY", "AUTHORITY_KEY")
PLACEHOLDERS = {
    "SESSION": "00" * 16,
    "LOG_KEY": log_key("aggregator.example/secagg", key_of("coordinator").public_bytes).to_text(),
} | dict.fromkeys(KEYS, "00" * 32)


def commands() -> list[list[str]]:
    """Every `secagg` and `secagg-verify` command that README.md shows, as its words."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.startswith("$ secagg")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_in_the_readme_is_one(words: list[str]) -> None:
    program, *arguments = (PLACEHOLDERS.get(word, word) for word in words)
    parser = verifier_cli._parser() if program == "secagg-verify" else main.parser_for(arguments)
    assert callable(parser.parse_args(arguments).run)
