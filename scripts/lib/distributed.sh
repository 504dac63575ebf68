# What the distributed launchers share; they source it after common.sh. Every rank runs under rank.sh, in
# a process group of its own, and `watch_ranks` reads in $EVENTS what becomes of it.
# A launcher defines `log_of RANK`, and `supervisor` as the process id of msrun where there is one.
# shellcheck shell=sh

GRACE=10 # seconds from TERM to KILL: rank 0 saves its last epoch in between
# The end of the launchers' NOTES.
# shellcheck disable=SC2034  # they show it
IN_FRONT="It stays in front until all ranks have ended, and ends them all when one fails."

# prepare_ranks: the events' folder, and what a signal to the launcher does.
prepare_ranks() {
    command -v setsid >/dev/null || fail "there is no setsid on the PATH; install util-linux"
    state=$(temporary_folder) || exit 2
    trap 'rm -rf "$state"' EXIT
    trap 'interrupted 129' HUP
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM
    export EVENTS="$state/events" PYTHONUNBUFFERED=1
    : >"$EVENTS"
    supervisor=
}

# read_stat STAT_FILE: set `state_letter` and `group` of a process; false if it is gone or a zombie.
read_stat() {
    { read -r line <"$1"; } 2>/dev/null || return
    line=${line##*) } # the name before it may hold anything
    state_letter=${line%% *} line=${line#* * }
    group=${line%% *}
    [ "$state_letter" != Z ]
}

# any_left: whether a process of `groups` is left. (ps may be missing, and kill -0 takes zombies for alive.)
any_left() {
    for stat in /proc/[0-9]*/stat; do
        if read_stat "$stat"; then
            case " $groups " in *" $group "*) return 0 ;; esac
        fi
    done
    return 1
}

# still SECONDS COMMAND...: whether COMMAND, which says that something is there, is true all that time.
still() {
    tick=$(($1 * 5))
    shift
    while "$@"; do
        [ "$tick" -gt 0 ] || return 0
        sleep 0.2
        tick=$((tick - 1))
    done
    return 1
}

# end_ranks: end every process of the run: politely, and after GRACE seconds not.
end_ranks() {
    trap '' HUP INT TERM
    : >"$state/stop"
    groups="$(sed -n 's/^start [^ ]* //p' "$EVENTS" | tr '\n' ' ')$supervisor"
    for signal in TERM KILL; do
        for group in $groups; do
            kill -s "$signal" -- "-$group" 2>/dev/null
        done
        still "$GRACE" any_left || return 0
    done
}

interrupted() { # STATUS
    end_ranks
    fail "interrupted; all ranks were ended" "$1"
}

# failed NAME STATUS LOG...: end the others, say which failed first, and exit with its status.
failed() {
    end_ranks
    status=$2
    how="ended with status $status"
    [ "$status" -le 128 ] || how="was killed by signal $((status - 128))"
    say "$(basename -- "$0"): $1 $how and was the first to fail; all others were ended; the end of its log $3:" >&2
    tail -n 20 "$3" >&2
    shift 3
    for log; do
        say "the end of the log $log:" >&2
        tail -n 20 "$log" >&2
    done
    exit "$status"
}

# look: set `gone`, the ranks without a process; `ended`, those that said how they ended; `bad` and
# `status`, the first that did not end well, rather a rank than the scheduler. In this order: rank.sh says
# how it ends before it does.
look() {
    gone='' ended='' bad=''
    while read -r what rank value; do
        [ "$what" != start ] || read_stat "/proc/$value/stat" || gone="$gone $rank"
    done <"$EVENTS"
    [ -z "$supervisor" ] || read_stat "/proc/$supervisor/stat" || gone="$gone msrun"
    while read -r what rank value; do
        [ "$what" = end ] || continue
        [ "$value" = 0 ] || [ -n "${bad#scheduler}" ] || bad=$rank status=$value
        [ "$rank" = scheduler ] || ended="$ended $rank"
    done <"$EVENTS"
}

# watch_ranks COUNT WHICH: return when COUNT ranks have ended well; as soon as one fails, do not.
watch_ranks() {
    count=$1
    say "started here: $2; logs: $(log_of RANK), and rank 0's tells the progress"
    while :; do
        look
        case $bad in
            '') ;;
            scheduler) failed "the scheduler" "$status" "$(log_of scheduler)" ;;
            *) failed "rank $bad" "$status" "$(log_of "$bad")" ;;
        esac
        [ "$(echo "$ended" | wc -w)" -lt "$count" ] || break
        set --
        killed=''
        for rank in $gone; do
            case " $ended " in *" $rank "*) continue ;; esac
            if [ "$rank" != msrun ]; then # rank.sh itself was killed
                set -- "$@" "$(log_of "$rank")"
                killed="$killed $rank"
            elif [ $# -eq 0 ]; then
                wait "$supervisor"
                status=$?
                failed msrun $((status > 0 ? status : 1)) "$(log_of msrun)"
            fi
        done
        case $# in
            0) ;;
            1) failed "rank$killed" 137 "$@" ;;
            *) failed "one of the ranks$killed" 137 "$@" ;; # msrun has killed the others before anyone looked
        esac
        sleep 0.2
    done
    if [ -n "$supervisor" ]; then # with the scheduler it ends last
        still 10 read_stat "/proc/$supervisor/stat"
        end_ranks
    fi
    echo "all ranks started here have ended well"
}
