#!/bin/sh
# What pairs cost on this machine, one after the other, as Markdown:
#
#   eval/measure.sh embedded qwq qwen3 > costs.md
#
# `embedded` is solved with as well, by every variant of the method (BENCH=no leaves that out; BENCH="--limit 40" says how
# much). Of the other pairs only the sizes are real, so nothing is downloaded (WEIGHTS=real takes the models themselves).
# $PYTHON is the interpreter that the package is installed for.
set -eu

specreason() { "${PYTHON:-python}" -m specreason_sgl "$@"; }
package=$("${PYTHON:-python}" -c 'import pathlib, specreason_sgl
print(pathlib.Path(specreason_sgl.__file__).parent)')
dummy=$([ "${WEIGHTS:-dummy}" = real ] || echo --dummy)
bench=${BENCH:---limit 16 --load 48}
trap 'specreason down >&2' EXIT

up() {
    if [ "$1" != embedded ]; then
        specreason up --pair "$1" $dummy >&2
    elif command -v nvidia-smi > /dev/null; then
        specreason up --base "$package/embedded/base" --small "$package/embedded/small" --context 4096 >&2
    else
        specreason up --pair embedded >&2
    fi
}

for pair in "$@"; do
    up "$pair"
    printf '## %s\n\n' "$pair"
    specreason bench --calibrate --markdown
    printf '\n'
    if [ "$pair" = embedded ] && [ "$bench" != no ]; then
        specreason bench --markdown $bench
        printf '\n'
    fi
    specreason down >&2
done
