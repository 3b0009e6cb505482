trap 'exit 0' TERM
while :; do
  message=$(wget -q -O - http://queue/cgi-bin/take)
  if [ -n "$message" ]; then
    wget -q -O /dev/null "http://queue/cgi-bin/done?$message-by-$EDITION"
  else
    sleep 0.5
  fi
done
