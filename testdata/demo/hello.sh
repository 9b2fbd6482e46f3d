#!/bin/sh
echo "$GREETING a container that rbuild made."
echo "Words: $(tr '\n' ' ' < /app/words)"
