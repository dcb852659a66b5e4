"""Look the packages of locks up in the advisories that are published for them.

usage: python .ci/audit_locks.py LOCK...

Needs pip-audit. Exits 1 where a package has a known vulnerability. Where advisories cannot be reached, which pip-audit
alone calls "no known vulnerabilities" for packages that the index does not tell of, it says so and exits 0: that is no
fault of the locks, and no finding either.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def ask_pip_audit(locks: Sequence[str]) -> tuple[list[dict[str, Any]], str]:
    """What pip-audit found of each package, and what it said where it found nothing out."""
    options = ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--desc", "off", "--format", "json"]
    files = [part for lock in locks for part in ("--requirement", lock)]
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *options, *files], capture_output=True, text=True, check=False
    )
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, LookupError):
        return [], " ".join(done.stderr.split())[:500] or "it said nothing"


def main(locks: Sequence[str]) -> int:
    """Print what is known of the locks' packages."""
    packages, problem = ask_pip_audit(locks)
    known = [package for package in packages if "skip_reason" not in package]
    vulnerable = [package for package in known if package["vulns"]]
    for package in vulnerable:
        for one in package["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    n_unknown = len(packages) - len(known)
    if problem:
        is_unreached = "could not connect" in problem.lower()
        print(f"NOT AUDITED: {'advisories could not be reached' if is_unreached else 'pip-audit failed'}: {problem}")
        return 0 if is_unreached else 1
    if n_unknown:
        print(f"NOT AUDITED: advisories could not be reached for {n_unknown} of {len(packages)} packages.")
    elif not vulnerable:
        print(f"No known vulnerability in {len(packages)} packages.")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
