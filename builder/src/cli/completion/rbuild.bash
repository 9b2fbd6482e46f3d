# Completion of rbuild for bash. It asks rbuild: images, past builds, stages and flags are those of this moment.
_rbuild() {
    local IFS=$'\n'
    COMPREPLY=($("${COMP_WORDS[0]}" __complete bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
    # Nothing behind a directory or `NAME=`: it is not the end of the word.
    [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *[/=:] ]] || compopt -o nospace
}
complete -o nosort -F _rbuild rbuild
