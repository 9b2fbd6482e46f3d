#compdef rbuild
# Completion of rbuild for zsh. It asks rbuild: images, past builds, stages and flags are those of this moment.
_rbuild() {
    local -a values meanings open
    local line value
    while IFS= read -r line; do
        value=${line%%$'\t'*}
        if [[ $value == *[/=:] ]]; then
            open+=("$value")
        else
            values+=("$value")
            [[ $line == *$'\t'* ]] && meanings+=("$value -- ${line#*$'\t'}") || meanings+=("$value")
        fi
    done < <("${words[1]}" __complete zsh "${(@)words[1,CURRENT]}" 2>/dev/null)
    (( ${#values} )) && compadd -l -V rbuild -d meanings -a values
    (( ${#open} )) && compadd -S '' -V rbuild-open -a open
}
if [[ ${funcstack[1]} == _rbuild ]]; then
    _rbuild "$@"
else
    compdef _rbuild rbuild
fi
