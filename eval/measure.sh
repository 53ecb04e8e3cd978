#!/bin/sh
# What pairs cost on this machine, one after the other, as Markdown, and how fast every mode is:
#
#   eval/measure.sh embedded qwq qwen3 > costs.md
#
# `embedded` is solved with as well, by every variant of the method, and by every mode with and without drafted tokens
# (BENCH=no leaves that out; BENCH="--limit 40" says how much). Of the other pairs only the sizes are real, so nothing is
# downloaded. WEIGHTS=real takes the models themselves, and solves with them too: by the modes that draft no tokens, then,
# since two base models seldom fit, by the others, reported as one (SOLVE="--dataset aime24 --limit 10" says what; SOLVE=no
# leaves it out). ROUNDS=1 times costs once instead of five times. $PYTHON is the interpreter that the package is
# installed for.
set -eu

specreason() { "${PYTHON:-python}" -m specreason_sgl "$@"; }
package=$("${PYTHON:-python}" -c 'import pathlib, specreason_sgl
print(pathlib.Path(specreason_sgl.__file__).parent)')
gpu=$(command -v nvidia-smi || true)
weights=${WEIGHTS:-dummy}
dummy=$([ "$weights" = real ] || echo --dummy)
bench=${BENCH:---limit 16 --load 48}
solve=${SOLVE:---dataset math500 --limit 30}
runs=${RUNS:-runs}/measured-$(date +%Y%m%d-%H%M%S)
trap 'specreason down >&2' EXIT

up() {
    if [ "$1" != embedded ]; then
        specreason up --pair "$@" >&2
    elif [ "$gpu" ]; then
        shift
        specreason up --base "$package/embedded/pair/base" --small "$package/embedded/pair/small" --context 4096 "$@" >&2
    else
        shift
        specreason up "$@" >&2
    fi
}

# Where the base model's server of the pair that is up listens.
base() { specreason status --json | "${PYTHON:-python}" -c 'import json, sys; print(json.load(sys.stdin)["base"])'; }

# Solves by the modes of a job, with and without drafted tokens, in two runs over one pair, and reports them as one.
both() {
    pair=$1 job=$2
    shift 2
    specreason eval "$job" "$@" --concurrency 1 --modes base,small,specreason,lookahead \
        --out "$runs-$pair-alone" --display plain >&2
    specreason down >&2
    up "$pair" --decode auto
    specreason eval "$job" "$@" --concurrency 1 --modes base+decode,specreason+decode,lookahead+decode \
        --decode "$(base)" --out "$runs-$pair-decode" --display plain >&2
    specreason report "$runs-$pair-alone" "$runs-$pair-decode" --together --markdown
}

for pair in "$@"; do
    if [ "$pair" = embedded ]; then up embedded; else up "$pair" $dummy; fi
    printf '## %s\n\n' "$pair"
    specreason bench --calibrate --markdown ${ROUNDS:+--rounds "$ROUNDS"}
    printf '\n'
    if [ "$pair" = embedded ] && [ "$bench" != no ]; then
        specreason bench --markdown $bench
        printf '\n'
        if [ "$gpu" ]; then
            both embedded decode --limit "${LIMIT:-16}"
        else
            specreason down >&2
            specreason bench --decode small --markdown $bench
        fi
        printf '\n'
    elif [ "$pair" != embedded ] && [ "$weights" = real ] && [ "$solve" != no ]; then
        both "$pair" paper-short $solve
        printf '\n'
    fi
    specreason down >&2
done
