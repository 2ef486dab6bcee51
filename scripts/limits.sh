#!/bin/bash
# Checks that no source file has more than 400 lines of code. Clippy checks the length of functions, see `make lint`.
#
#   scripts/limits.sh [--count] [DIR]...     (default: the sources of all packages)
#
# Counts the lines that are neither blank nor comments and that are not for tests only. For tests only are items under #[cfg(test)],
# modules that are declared under it, files named tests.rs and folders named tests. --count prints the count of every file instead.
set -euo pipefail

limit=400

die() {
    echo "limits: $*" >&2
    exit 2
}

only_count=0
if [[ ${1-} == --count ]]; then
    only_count=1
    shift
fi
if ((!$#)); then
    cd "$(dirname "$(realpath "$0")")/.."
    set -- src cryptsetup-token/src external-tokens/src fake-aws/src fuzz/src
fi
for dir in "$@"; do
    [[ -d $dir ]] || die "no folder '$dir'; expected folders with Rust sources"
done

mapfile -t files < <(find "$@" -name '*.rs' ! -name tests.rs ! -path '*/tests/*' | sort)
((${#files[@]})) || die "no Rust sources in $*"

# This reads characters and not only lines, because a string may look like a comment, and a comment may contain a brace.
awk -v limit="$limit" -v only_count="$only_count" '
# Returns the folder with the modules that a file declares.
function module_dir(file) {
    if (file ~ /\/(mod|lib|main)\.rs$/) sub(/\/[^\/]*$/, "", file)
    else sub(/\.rs$/, "", file)
    return file
}

# Whether a character ends the current item under #[cfg(test)]. A comma ends a field, a variant or an arm.
function ends_item(c, last) {
    return depth == base && (c == ";" || c == "}" || (c == "," && last && indent == base_indent))
}

FNR == 1 {
    order[++file_count] = FILENAME
    count[FILENAME] = depth = comment = in_string = for_tests = whole_file = 0
    raw = ""
}

{
    line = $0
    match(line, /^ */)
    indent = RLENGTH
    has_code = 0
    if (!comment && !in_string && line ~ /^#!\[cfg\(test\)\]/) whole_file = 1
    if (!comment && !in_string && !for_tests && line ~ /^ *#\[cfg\((test\)|all\(test,)/) {
        for_tests = 1
        base = depth
        base_indent = indent
    }
    if (for_tests && match(line, /mod [a-z0-9_]+;/))
        only_tests[module_dir(FILENAME) "/" substr(line, RSTART + 4, RLENGTH - 5)] = 1
    skipped = for_tests || whole_file

    length_ = length(line)
    for (i = 1; i <= length_; i++) {
        c = substr(line, i, 1)
        if (comment) {
            two = substr(line, i, 2)
            if (two == "*/") { comment--; i++ }
            else if (two == "/*") { comment++; i++ }
            continue
        }
        if (c == " " || c == "\t") continue
        if (in_string) {
            has_code = 1
            if (raw == "" && c == "\\") i++
            else if (c == "\"" && (raw == "" || substr(line, i + 1, length(raw) - 1) == substr(raw, 2))) {
                i += (raw == "" ? 0 : length(raw) - 1)
                in_string = 0
                raw = ""
            }
            continue
        }
        if (c == "/") {
            two = substr(line, i, 2)
            if (two == "//") break
            if (two == "/*") { comment = 1; i++; continue }
        }
        has_code = 1
        if (c == "\"") { in_string = 1; continue }
        if (c == "r" && substr(line, i) ~ /^r#*"/ && (i == 1 || substr(line, i - 1, 1) !~ /[A-Za-z0-9_]/ || substr(line, i - 1, 2) ~ /^[bc]r/)) {
            match(substr(line, i), /^r#*"/)
            # "r" and the number signs, which end the string after a quotation mark
            raw = "r" substr(line, i + 1, RLENGTH - 2)
            in_string = 1
            i += RLENGTH - 1
            continue
        }
        if (c == "\047" && match(substr(line, i), /^\047(\\[^\047]*\047|\\\047\047|[^\047\\]\047)/)) { i += RLENGTH - 1; continue }
        if (c ~ /[({[]/) depth++
        if (c ~ /[)}\]]/) depth--
        if (for_tests && ends_item(c, i == length_)) for_tests = 0
    }
    if (has_code && !skipped) count[FILENAME]++
}

END {
    for (i = 1; i <= file_count; i++) {
        file = order[i]
        path = file
        sub(/(\/mod)?\.rs$/, "", path)
        for (module in only_tests) if (path == module || index(path, module "/") == 1) count[file] = 0
        if (only_count) print count[file], file
        else if (count[file] > limit) {
            printf "limits: %s has %d lines of code, the limit is %d; split it by noun\n", file, count[file], limit | "cat >&2"
            failed = 1
        }
    }
    exit failed
}
' "${files[@]}"
