"""Check the packages in requirements.txt for known vulnerabilities: python -m tests.audit.

The script passes its options to pip-audit: --ignore-vuln=ID, --vulnerability-service=osv and so on.
The exit status is 0 if no package has a known vulnerability, 1 if one has, and 3 if a package could
not be checked. pip-audit 2.10 alone also exits with 0 if its source knows none of the packages.
"""

import json
import subprocess
import sys
from typing import Any

VULNERABLE = 1
UNCHECKED = 3
COMMAND = [
    *(sys.executable, "-m", "pip_audit", "--requirement=requirements.txt", "--require-hashes"),
    *("--disable-pip", "--format=json", "--progress-spinner=off"),
]


def main() -> None:
    done = subprocess.run([*COMMAND, *sys.argv[1:]], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:  # pip-audit printed no JSON
        reason = (done.stderr.strip() or "it printed no error").splitlines()[-1]
        print(f"audit: NOT CHECKED: pip-audit failed: {reason}")
        sys.exit(UNCHECKED)
    lines, status = report(packages)
    print(*lines, sep="\n")
    sys.exit(status)


def report(packages: list[dict[str, Any]]) -> tuple[list[str], int]:
    """Convert pip-audit's list of packages to the lines to print and the exit status."""
    lines = [
        f"audit: {package['name']} {package['version']}: {vulnerability['id']}, fixed in "
        f"{' or '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in packages
        for vulnerability in package.get("vulns", ())
    ]
    reasons = [package["skip_reason"] for package in packages if "skip_reason" in package]
    status = VULNERABLE if lines else UNCHECKED if reasons else 0
    if reasons:
        count = f"{len(reasons)} of {len(packages)} packages"
        lines.append(f"audit: NOT CHECKED: {count}; first reason: {reasons[0]}")
    if not lines:
        lines.append(f"audit: no known vulnerabilities in {len(packages)} packages")
    return lines, status


if __name__ == "__main__":
    main()
