#!/bin/sh
# Stands in for `shoal daemon`, so that the tests can be held against stock Swarm: the node's API socket is its Engine's.
#   SHOAL_TEST_DAEMON=$PWD/test/cluster/stock-swarm.sh npm run test:clients
# Tests of what Shoal does on purpose otherwise fail then; every other failure is a wrong test.
while [ $# -gt 0 ]; do
  case $1 in
    --host) socket=${2#unix://} ;;
    --engine) engine=${2#unix://} ;;
  esac
  shift
done
ln -sf "$engine" "$socket"
while :; do sleep 3600; done
