#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
mkdir -p /queue/new && : >"/queue/new/$QUERY_STRING" && echo "put $QUERY_STRING"
