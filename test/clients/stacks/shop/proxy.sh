#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
wget -q -O - http://api:8080/cgi-bin/stock
