#!/bin/sh
# Calls every URL of TARGETS each INTERVAL seconds and says who answered; ends at once on SIGTERM.
trap 'exit 0' TERM INT
while :; do
  for url in ${TARGETS:-http://web/}; do
    if answer=$(timeout 2 wget -q -O - "$url" 2>&1); then
      echo "$url answered by $(echo $answer)"
    else
      echo "$url did not answer: $answer"
    fi
  done
  sleep "${INTERVAL:-1}" &
  wait $!
done
