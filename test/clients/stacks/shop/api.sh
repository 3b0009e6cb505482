#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
{ cat /run/secrets/database-password; echo; } | nc db 5432
