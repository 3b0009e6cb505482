#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
for address in $(nslookup -type=a tasks.agent | sed '1,/^$/d' | awk '/^Address/ {print $2}'); do
  wget -q -O - "http://$address/metrics"
done | sort
