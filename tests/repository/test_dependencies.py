"""What users install: licences that may be shipped, bounds from below alone, and an audit that says what it knows."""

import json
import re
import stat
import sys
from email.message import Message
from pathlib import Path

import pytest

from repository import dependencies

ROOT = Path(__file__).parents[2]


class Package:
    """A distribution's metadata, without one."""

    def __init__(self, **fields):
        self.metadata = Message()
        self.metadata["Name"], self.version = "p", "1"
        for name, values in fields.items():
            for value in values if isinstance(values, list) else [values]:
                self.metadata[name.replace("_", "-")] = value


def test_all_that_users_install_may_be_shipped():
    found = dependencies.dependencies()
    assert {"numpy", "onnx", "onnxruntime", "protobuf", "pyyaml", "rich"} <= set(found)
    assert "pytest" not in found
    assert [name for name, package in found.items() if dependencies.forbidden(package)] == []


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"License_Expression": "Apache-2.0 WITH LLVM-exception AND (MIT OR BSD-2-Clause)"}, []),
        ({"License_Expression": "MIT AND GPL-3.0-only"}, ["GPL-3.0-only"]),
        ({"Classifier": ["License :: OSI Approved :: BSD License"]}, []),
        ({"Classifier": ["License :: OSI Approved :: GNU Affero General Public License v3"]},
         ["GNU Affero General Public License v3"]),
        ({"License": "3-Clause BSD License"}, []),
        ({"License": "Proprietary"}, ["Proprietary"]),
        ({}, ["unknown"]),
    ],
)  # fmt: skip
def test_licences_are_read_from_metadata(fields, wrong):
    assert dependencies.forbidden(Package(**fields)) == wrong


def answering(folder: Path, text: str) -> str:
    """A command that prints this."""
    path = folder / "pip-audit"
    path.write_text(f"#!{sys.executable}\nprint({text!r})\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_an_audit_says_what_is_known_and_what_was_not_reachable(tmp_path):
    vulnerable = {"name": "p", "version": "1", "vulns": [{"id": "CVE-1"}]}
    skipped = {"name": "q", "skip_reason": "not found"}
    packages = {"p": Package()}
    known, said = dependencies.audit(answering(tmp_path, json.dumps({"dependencies": [vulnerable, skipped]})), packages)
    assert known == ["p 1: CVE-1"] and "1 packages audited" in said and "q" in said
    for answer in (json.dumps({"dependencies": [skipped]}), "ConnectionError"):
        known, said = dependencies.audit(answering(tmp_path, answer), packages)
        assert known == [] and "nothing was audited" in said
    assert "not reachable" in dependencies.audit(str(tmp_path / "absent"), packages)[1]


def test_nothing_that_users_install_has_an_upper_bound():
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.findall(r"^(?:dependencies|cpu|gpu|export) = \[(.*)\]", text, re.MULTILINE)
    assert len(listed) == 4 and not [line for line in listed if "<" in line or "==" in line or "~=" in line]
