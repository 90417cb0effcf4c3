"""Look for known vulnerabilities in what requirements.txt locks: python -m tests.audit

Options go on to pip-audit: --ignore-vuln=ID, --vulnerability-service=osv and so on. The exit status
is 0 if nothing is known of any package, 1 if something is, and 3 if no answer was had for some.
pip-audit alone ends with 0 as well where its source answers but does not know a single package.
"""

import json
import subprocess
import sys
from typing import Any

FOUND = 1
UNCHECKED = 3
COMMAND = [
    *(sys.executable, "-m", "pip_audit", "--requirement=requirements.txt", "--require-hashes"),
    *("--disable-pip", "--format=json", "--progress-spinner=off"),
]


def main() -> None:
    done = subprocess.run([*COMMAND, *sys.argv[1:]], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:  # it gave up
        reason = (done.stderr.strip() or "pip-audit said nothing").splitlines()[-1]
        print(f"audit: NOT CHECKED: pip-audit gave up: {reason}")
        sys.exit(UNCHECKED)
    lines, status = report(packages)
    print(*lines, sep="\n")
    sys.exit(status)


def report(packages: list[dict[str, Any]]) -> tuple[list[str], int]:
    """Turn pip-audit's list of packages into what is printed and the exit status."""
    lines = [
        f"audit: {package['name']} {package['version']}: {vulnerability['id']}, fixed in "
        f"{' or '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package in packages
        for vulnerability in package.get("vulns", ())
    ]
    reasons = [package["skip_reason"] for package in packages if "skip_reason" in package]
    status = FOUND if lines else UNCHECKED if reasons else 0
    if reasons:
        count = f"{len(reasons)} of {len(packages)} packages"
        lines.append(f"audit: NOT CHECKED: {count}; of the first: {reasons[0]}")
    if not lines:
        lines.append(f"audit: nothing is known of any of {len(packages)} packages")
    return lines, status


if __name__ == "__main__":
    main()
