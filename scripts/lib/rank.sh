#!/bin/sh
# rank.sh COMMAND ARGUMENT...: run one process of a distributed run, and note in the file $EVENTS that
# it has started ("start RANK PROCESS_GROUP") and how it ended ("end RANK STATUS").
name=$RANK_ID
if [ "${MS_ROLE:-}" = MS_SCHED ]; then # msrun's scheduler has a RANK_ID too, and is in msrun's process group
    name=scheduler
else
    echo "start $name $$" >>"$EVENTS" || exit
fi
[ ! -e "${EVENTS%/*}/stop" ] || exit 1 # the launcher ends the run, and has not seen this process yet
PATH=${PATH#"${EVENTS%/*}:"}           # under msrun this file stands there as `python`
"$@"
status=$?
echo "end $name $status" >>"$EVENTS"
exit "$status"
