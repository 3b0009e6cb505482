#!/bin/sh
# Of several workers that want a message at once, one gets it: a file is moved once.
printf 'Content-Type: text/plain\r\n\r\n'
mkdir -p /queue/taken
for message in /queue/new/*; do
  mv "$message" /queue/taken/ 2>/dev/null && basename "$message" && exit
done
