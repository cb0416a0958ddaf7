#!/usr/bin/env bash
# Checks the dependencies by cargo-deny. The advisory database is a git repository on GitHub: where it can't be fetched,
# the check says so plainly and goes on, unless TIDEGATE_REQUIRE_ADVISORIES is set.
#
#   deny.sh CARGO_DENY
set -euo pipefail

deny=$1
"$deny" --locked check bans licenses sources

# Never ask for a password where nobody sits.
export GIT_TERMINAL_PROMPT=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if timeout 120 "$deny" --locked fetch db >"$log" 2>&1; then
  "$deny" --locked --offline check advisories
elif [ -n "${TIDEGATE_REQUIRE_ADVISORIES:-}" ]; then
  cat "$log" >&2
  echo "advisories: the database can't be fetched, and TIDEGATE_REQUIRE_ADVISORIES is set." >&2
  exit 1
else
  tail -n 3 "$log" >&2
  echo "advisories: NOT CHECKED: the advisory database can't be fetched from here." >&2
fi
