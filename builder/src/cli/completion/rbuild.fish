# Completion of rbuild for fish. It asks rbuild: images, past builds, stages and flags are those of this moment.
complete --command rbuild --no-files --keep-order \
    --arguments '(set -l words (commandline --tokenize --current-process --cut-at-cursor); $words[1] __complete fish $words (commandline --current-token --cut-at-cursor) 2>/dev/null)'
