"""What a user installs beside FastCAM: its licences, and what is known against its versions. make test-all runs it.

python tests/repository/dependencies.py             # the licences; status 1 where one is not permitted
python tests/repository/dependencies.py PIP-AUDIT   # and the weaknesses that this command of pip-audit knows of
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution

EXTRAS = ("cpu", "gpu", "export", "language", "serve", "tracing")
"""Of fastcam, which users name; test and docs are ours alone."""
PERMITTED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD", "BSL-1.0", "CC0-1.0", "HPND", "ISC", "MIT", "MIT-CMU",
    "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib",
}  # fmt: skip
"""By SPDX; BSD is one whose clauses the metadata does not number. Who ships these with a product need not open it."""
SAID = {
    r"apache": "Apache-2.0",
    r"\bmit\b": "MIT",
    r"3-clause bsd|bsd.3": "BSD-3-Clause",
    r"2-clause bsd|bsd.2": "BSD-2-Clause",
    r"\bbsd\b": "BSD",
    r"mozilla public license 2": "MPL-2.0",
    r"\bisc\b": "ISC",
    r"python software foundation|^psf": "PSF-2.0",
}
"""What metadata says in other words."""


def installed(name: str) -> Distribution | None:
    """A package, where it is installed."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def dependencies(root: str = "fastcam", extras: tuple[str, ...] = EXTRAS) -> dict[str, Distribution]:
    """All packages that a package needs, directly or not, as far as they are installed."""
    from packaging.requirements import Requirement

    found: dict[str, Distribution] = {}
    todo = [(root, extras)]
    while todo:
        name, wanted = todo.pop()
        here = installed(name)
        if here is None or name in found:
            continue
        found[name] = here
        for text in here.requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *wanted)):
                todo.append((needed.name.lower().replace("_", "-"), tuple(needed.extras)))
    found.pop(root, None)
    return found


def licences(package: Distribution) -> list[str]:
    """The licences of a package, by SPDX where its metadata can be read so."""
    about = package.metadata
    expression = about.get("License-Expression")
    if expression:
        return re.split(r"\s+(?:AND|OR|WITH [\w.-]+(?: AND)?)\s*", expression.replace("(", "").replace(")", ""))
    classified = [line for line in about.get_all("Classifier", []) if line.startswith("License ::")]
    said = [line.split(" :: ")[-1] for line in classified] or [(about.get("License") or "").splitlines()[0:1]]
    known = []
    for text in said:
        text = text if isinstance(text, str) else " ".join(text)
        known.append(next((spdx for said, spdx in SAID.items() if re.search(said, text.lower())), text))
    return [one or "unknown" for one in known]


def forbidden(package: Distribution) -> list[str]:
    """Those of its licences that are not permitted."""
    return [one for one in licences(package) if one and one not in PERMITTED]


def audit(command: str, packages: dict[str, Distribution]) -> tuple[list[str], str]:
    """The known weaknesses of packages, one a line, and what was asked; a service that is not reachable is no fault."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(f"{name}=={package.version}\n" for name, package in packages.items()))
        file.flush()
        arguments = [*command.split(), "-r", file.name, "--no-deps", "--disable-pip", "--format", "json"]
        try:
            done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
            answers = json.loads(done.stdout)["dependencies"]
        except (OSError, ValueError, KeyError, subprocess.TimeoutExpired):
            return [], "pip-audit or its service is not reachable: nothing was audited"
    if all("skip_reason" in one for one in answers):
        return [], "pip-audit's service knows none of the packages here: nothing was audited"
    known = [f"{one['name']} {one['version']}: {each['id']}" for one in answers for each in one.get("vulns", [])]
    skipped = [one["name"] for one in answers if "skip_reason" in one]
    unknown = f", unknown to the service: {', '.join(skipped)}" if skipped else ""
    return known, f"{len(answers) - len(skipped)} packages audited{unknown}"


def main(arguments: list[str]) -> int:
    packages = dependencies()
    for name in sorted(packages):
        print(f"{name:24} {packages[name].version:16} {', '.join(licences(packages[name]))}")
    wrong = [f"{name}: {one}" for name, package in packages.items() for one in forbidden(package)]
    print(*[f"not permitted: {one}" for one in wrong], sep="\n", end="\n" * bool(wrong))
    known, said = audit(arguments[0], packages) if arguments else ([], "")
    print(said, *known, sep="\n")
    return int(bool(wrong or known))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
