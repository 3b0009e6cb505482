echo "$EDITION" >>/data/editions
exec serve
