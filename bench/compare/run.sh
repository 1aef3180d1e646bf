#!/bin/bash
# CPU per call of Kamailio (stateful, dialog, CDR in the log) and of ringtoll (B2BUA, charging
# over Rf) under the same load, in one go: absolute figures drift with the machine, the ratio of
# one run counts. PAIRS of runs take turns; the median of their ratios is what to quote.
#
#   bench/compare/run.sh [CALLS_PER_SECOND [SECONDS [PAIRS]]]
#
# A run takes SECONDS and a few more; up to 20 more if a datagram was lost for good. The server has core 0 to itself; callers, callees and the CDF share core 1. Needs kamailio and
# sipp; RINGTOLL names the binary if it is not in target/release. Ports: 15360 to 15390, 15868.
set -euo pipefail

rate=${1:-1000}
seconds=${2:-20}
pairs=${3:-1}
hold_ms=${HOLD_MS:-1000}
here=$(cd "$(dirname "$0")" && pwd)
ringtoll=${RINGTOLL:-${CARGO_TARGET_DIR:-$here/../../target}/release/ringtoll}
server_port=15360
callee_port=15390
cdf_port=15868
# sipp's own 64 KiB are full when its process has to wait 10 ms for the core, and a BYE that is
# lost there is answered by nobody for 32 s.
socket_buffer=$((8 << 20))
work=$(mktemp -d)
started=()

# Ends a process of ours: in order if it can, within 10 s in any case.
stop() {
    local tries
    kill "$1" 2>/dev/null || return 0
    for tries in $(seq 100); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

finish() {
    local pid
    for pid in "${started[@]}"; do
        stop "$pid"
    done
    rm -rf "$work"
}
trap finish EXIT

for tool in kamailio sipp taskset; do
    command -v "$tool" >/dev/null || { echo "run.sh: $tool is not installed" >&2; exit 2; }
done
[[ -x $ringtoll ]] || { echo "run.sh: $ringtoll is missing: build it first" >&2; exit 2; }

# A process and its descendants.
family() {
    local pid children
    for pid in "$@"; do
        echo "$pid"
        children=$(cat /proc/"$pid"/task/*/children 2>/dev/null || true)
        [[ -z $children ]] || family $children
    done
}

# Nanoseconds that all threads of these processes have run (schedstat, first field).
run_time() {
    local pid
    for pid in $(family "$1"); do
        cat /proc/"$pid"/task/*/schedstat 2>/dev/null || true
    done | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

until_bound() {
    local tries
    for tries in $(seq 100); do
        if ss -Hlun "sport = :$1" | grep -q .; then return; fi
        sleep 0.05
    done
    echo "run.sh: nothing listens on UDP port $1:" >&2
    tail -n 5 "$work"/*.log >&2
    exit 2
}

# measure NAME PID: puts load on the server and prints name, completed calls, microseconds a call.
measure() {
    local name=$1 server=$2 callee before after completed
    taskset -c 1 sipp -sf "$here/uas.xml" -i 127.0.0.1 -p $callee_port -nostdin -buff_size $socket_buffer \
        >"$work/uas.log" 2>&1 &
    callee=$!
    started+=("$callee")
    until_bound $callee_port
    before=$(run_time "$server")
    # The exit status tells of failed calls; the statistics do it better. A call that waits
    # for an answer longer than retransmissions of a datagram or two take has failed: without
    # that limit sipp waits for it without end.
    (cd "$work" && timeout $((seconds + 20)) taskset -c 1 \
        sipp -sf "$here/uac.xml" -i 127.0.0.1 -p 15380 "127.0.0.1:$server_port" \
        -r "$rate" -m $((rate * seconds)) -d "$hold_ms" -nostdin -buff_size $socket_buffer \
        -recv_timeout 8000 -trace_stat -stf "$work/$name.csv" -fd 1 >"$work/uac.log" 2>&1) || true
    after=$(run_time "$server")
    stop "$callee"
    # Columns are found by their names; the last line holds the totals.
    completed=$(awk -F';' '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == "SuccessfulCall(C)") c = i }
        END { print $c }' "$work/$name.csv")
    awk -v name="$name" -v ns=$((after - before)) -v calls="$completed" \
        -v placed=$((rate * seconds)) \
        'BEGIN { printf "%s %d %d %.1f\n", name, placed, calls, calls ? ns / 1000 / calls : 0 }'
}

run_kamailio() {
    taskset -c 0 kamailio -f "$here/kamailio.cfg" -DD -E -m 512 -M 32 -x fm -X fm -Y "$work" \
        -P "$work/kamailio.pid" >"$work/kamailio.log" 2>&1 &
    local server=$!
    started+=("$server")
    until_bound $server_port
    measure kamailio "$server" >"$work/kamailio"
    stop "$server"
    echo "$(cat "$work/kamailio") $(grep -c 'log_write_cdr' "$work/kamailio.log" || true)" \
        >>"$work/results"
}

run_ringtoll() {
    cat >"$work/node.toml" <<TOML
[node]
name = "compare"
cores = [0]
state_dir = "$work/state"
data_dir = "$work/data"
drain_timeout_s = 5
[sip]
listen = ["udp:127.0.0.1:$server_port"]
[[sip.route]]
match = "*"
next_hop = "udp:127.0.0.1:$callee_port"
[charging.rf]
cdf = ["127.0.0.1:$cdf_port"]
[admin]
listen = "127.0.0.1:15361"
TOML
    taskset -c 1 "$ringtoll" cdf --listen "127.0.0.1:$cdf_port" --store "$work/cdf.sqlite" \
        >"$work/cdf.log" 2>&1 &
    local cdf=$!
    started+=("$cdf")
    taskset -c 0 "$ringtoll" run --config "$work/node.toml" >"$work/node.log" 2>&1 &
    local server=$!
    started+=("$server")
    until_bound $server_port
    measure ringtoll "$server" >"$work/ringtoll"
    stop "$server"
    stop "$cdf"
    echo "$(cat "$work/ringtoll") $("$ringtoll" cdr list --json --store "$work/cdf.sqlite" |
        grep -c '"status":"complete"' || true)" >>"$work/results"
}

for pair in $(seq "$pairs"); do
    run_kamailio
    run_ringtoll
    rm -rf "$work"/state "$work"/data "$work"/cdf.sqlite*
done
awk -v rate="$rate" '
    function median(values, n,    i, j, swap) {
        for (i = 1; i <= n; i++)
            for (j = i + 1; j <= n; j++)
                if (values[j] < values[i]) {
                    swap = values[i]; values[i] = values[j]; values[j] = swap
                }
        return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2
    }
    BEGIN { printf "%-10s %8s %8s %8s %10s   at %d calls/s\n", "server", "placed", "done",
        "CDRs", "us/call", rate }
    {
        printf "%-10s %8d %8d %8d %10.1f\n", $1, $2, $3, $5, $4
        bad += $2 != $3 || $3 != $5
    }
    $1 == "kamailio" { theirs[++pairs] = $4 }
    $1 == "ringtoll" {
        ours[pairs] = $4
        if (theirs[pairs] > 0) {
            ratios[++known] = $4 / theirs[pairs]
            printf "ringtoll / kamailio = %.2f\n", ratios[known]
        }
    }
    END {
        if (known > 1)
            printf "medians of %d: kamailio %.1f, ringtoll %.1f, ringtoll / kamailio = %.2f\n",
                known, median(theirs, pairs), median(ours, pairs), median(ratios, known)
        exit bad > 0
    }' "$work/results"
