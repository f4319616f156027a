# Sourced by the examples. Starts a broker with a temporary folder and stops it at the end.
#   $broker   its address          $work   a folder for the files of the example
# An example fails with the first command that fails.
set -euo pipefail

work=$(mktemp -d)
millstream serve --listen 127.0.0.1:0 --data-dir "$work/data" >"$work/listening" 2>"$work/broker.log" &
process=$!

stop() {
    status=$?
    kill "$process" 2>/dev/null && wait "$process" 2>/dev/null
    [ $status -eq 0 ] || { echo "the example failed; the last lines of the broker's log:"; tail -n 20 "$work/broker.log"; } >&2
    rm -rf "$work"
    exit $status
}
trap stop EXIT

until grep -q listening "$work/listening"; do
    kill -0 "$process"
    sleep 0.02
done
broker=$(sed 's/listening on //' "$work/listening")

say() { printf '\n== %s\n' "$*"; }

# expect WHAT IS WANTED: a wrong result ends the example.
expect() {
    if [ "$2" != "$3" ]; then
        echo "$1: $2, and $3 was expected" >&2
        exit 1
    fi
    echo "$1: $2"
}
