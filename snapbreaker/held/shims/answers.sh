# Answers to questions: systemctl(1) is-active, is-failed, show, status, cat, list-units.

# is_state CODE STATES UNIT…: exits 0 if any unit is in one of STATES, else CODE.
is_state() {
	code=$1 good=$2
	shift 2
	[ $# -gt 0 ] || {
		echo 'Too few arguments.' >&2
		exit 1
	}
	for unit; do
		look_up "$unit"
		[ -n "$quiet" ] || echo "$active"
		case " $good " in *" $active "*) code=0 ;; esac
	done
	exit "$code"
}

wanted() {
	case ${properties:-,$1}, in *",$1,"*) return 0 ;; esac
	return 1
}

property() {
	wanted "$1" || return 0
	if [ -n "$value" ]; then printf '%s\n' "$2"; else printf '%s\n' "$1=$2"; fi
}

enablement() {
	[ -z "$file$source" ] || on_files is-enabled "$name" 2>/dev/null
}

yes_or_no() {
	if "$@"; then echo yes; else echo no; fi
}

# show UNIT…: what can be known without the manager. A property that is none of these has no line, as one that does
# not exist.
show() {
	if [ $# -eq 0 ]; then
		property Version "$("$held/real/systemctl" --version | sed -n '1s/.*(\(.*\)).*/\1/p')"
		property SystemState running
		return
	fi
	between=
	for unit; do
		[ -z "$between" ] || echo
		between=yes
		look_up "$unit"
		property Id "$name"
		property Names "$name"
		property LoadState "$load"
		property ActiveState "$active"
		property SubState "$sub"
		! wanted UnitFileState || property UnitFileState "$(enablement)"
		! wanted FragmentPath || property FragmentPath "${file#"$root"}"
		! wanted SourcePath || property SourcePath "${source#"$root"}"
		! wanted Description || property Description "$(setting Description)"
		! wanted Type || property Type "$(setting Type)"
		property CanStart yes
		property CanStop yes
		! wanted CanReload || property CanReload "$(yes_or_no can_reload)"
		property MainPID 0
		property NeedDaemonReload no
		case $name in
		*.socket | *.timer | *.path)
			triggered=$(setting Service)
			property Triggers "${triggered:-${name%.*}.service}"
			;;
		esac
	done
}

status() {
	[ $# -gt 0 ] || {
		echo running
		exit 0
	}
	code=0
	for unit; do
		look_up "$unit"
		if [ "$load" = not-found ]; then
			echo "Unit $name could not be found." >&2
			code=4
			continue
		fi
		[ "$active" = active ] || [ "$code" -ne 0 ] || code=3
		printf '%s - %s\n     Loaded: %s\n     Active: %s (%s)\n' "$name" "$(setting Description)" \
			"$load (${file:-$source}; $(enablement))" "$active" "$sub"
	done
	exit "$code"
}

show_files() {
	code=0
	for unit; do
		look_up "$unit"
		if [ -z "$file" ]; then
			echo "No files found for $name." >&2
			code=1
			continue
		fi
		for one in "$file" "$root"/etc/systemd/system/"$name".d/*.conf; do
			[ -f "$one" ] || continue
			echo "# ${one#"$root"}"
			cat "$one"
		done
	done
	exit "$code"
}

# any LIST WORD: whether the list, of items with a comma before each, is empty or has the word.
any() {
	[ -z "$1" ] || case $1, in *",$2,"*) ;; *) return 1 ;; esac
}

# matches NAME PATTERN…
matches() {
	one=$1
	shift
	[ $# -gt 0 ] || return 0
	for pattern; do
		# shellcheck disable=SC2254 # it is a pattern
		case $one in $pattern | $pattern.service) return 0 ;; esac
	done
	return 1
}

# list_units PATTERN…: the last line of each unit counts.
list_units() {
	[ -z "$legend" ] || echo 'UNIT LOAD ACTIVE SUB DESCRIPTION'
	tac "$held/units" | sort -s -u -k 1,1 | while read -r unit is more; do
		[ "$is" != inactive ] || [ -n "$all$states" ] || continue
		any "$types" "${unit##*.}" || continue
		any "$states" "$is" || any "$states" "$more" || continue
		if matches "$unit" "$@"; then echo "$unit loaded $is $more $unit"; fi
	done
}
