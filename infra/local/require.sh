#!/bin/sh
# Says what is missing on this machine, and how to get it, before anything is downloaded.
# Prints the Python to use. Needs: Python >= 3.11 with venv, a JDK >= 17.
set -u

fail() {
    printf 'audit-trail: %s\n' "$1" >&2
    exit 1
}

python=""
for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python="$candidate"
        break
    fi
done
[ -n "$python" ] || fail "Python 3.11 or newer is missing: install it, or set PYTHON to where it is"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv module: install it (on Debian: apt-get install python3-venv)"

java="${JAVA_HOME:+$JAVA_HOME/bin/}java"
version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
[ -n "$version" ] ||
    fail "a JDK is missing: install JDK 17 or newer (on Debian: apt-get install openjdk-17-jdk-headless), or set JAVA_HOME"
[ "$version" -ge 17 ] || fail "the JDK is $version, it must be 17 or newer: install one, or set JAVA_HOME"

printf '%s\n' "$python"
