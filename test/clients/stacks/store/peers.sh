#!/bin/sh
# The editions that this node's data has seen, what binds its process, and how many replicas there are.
printf 'Content-Type: text/plain\r\n\r\n'
hostname
tr '\n' ' ' </data/editions
echo
awk '/open files/ {print $4, $5}' /proc/self/limits
cat /proc/sys/net/core/somaxconn
nslookup -type=a peers | grep -c '^Name:'
