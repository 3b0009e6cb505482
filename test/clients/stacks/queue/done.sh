#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
[ -z "$QUERY_STRING" ] || echo "$QUERY_STRING" >>/queue/done
cat /queue/done
