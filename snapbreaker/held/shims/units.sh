# What is known of a unit: its file in the sandbox, and its state as the machine had it, or as it was asked for since.

# full_name WORD: sets $name as systemctl(1) makes it of an argument.
full_name() {
	case $1 in
	/dev/*) name=$(systemd-escape --path --suffix=device -- "$1") ;;
	/*) name=$(systemd-escape --path --suffix=mount -- "$1") ;;
	*.service | *.socket | *.target | *.timer | *.path | *.mount | *.automount | *.swap | *.slice | *.scope | *.device)
		name=$1
		;;
	*) name=$1.service ;;
	esac
}

# find_file NAME: sets $file; fails where there is none. systemd.unit(5), without /run, which does not last.
find_file() {
	for directory in /etc /usr/local/lib /usr/lib /lib; do
		file=$root$directory/systemd/system/$1
		[ ! -e "$file" ] && [ ! -L "$file" ] || return 0
	done
	file=
	return 1
}

# look_up WORD: sets name, file, source, load, active, sub.
look_up() {
	full_name "$1"
	load=loaded source=
	for _ in 1 2 3 4 5; do # an alias is a link to a file of another name
		if ! find_file "$name"; then
			case $name in *@*) find_file "${name%%@*}@.${name##*.}" || : ;; esac
			break
		fi
		[ -L "$file" ] || break
		target=$(readlink "$file")
		if [ "$target" = /dev/null ]; then
			load=masked
			break
		fi
		target=${target##*/}
		case $name in
		"$target") break ;;
		*@*) case $target in *@.*) break ;; esac ;;
		esac
		name=$target
	done
	state_of "$name"
	[ -z "$file" ] || return 0
	case $name in
	*.service)
		script=$root/etc/init.d/${name%.service}
		if [ -x "$script" ]; then source=$script; elif [ "$active" = inactive ]; then load=not-found; fi
		;;
	*) [ -n "$known" ] || load=not-found ;; # mounts, devices and swap come from elsewhere
	esac
}

# state_of NAME: sets active, sub, and known if it was ever heard of. The last line of a unit counts.
state_of() {
	known='' active=inactive sub=dead
	while read -r each is more; do
		if [ "$each" = "$1" ]; then known=yes active=$is sub=$more; fi
	done <<-END
		$(grep -F -- "$1 " "$held/units")
	END
}

# became STATE: the unit that was looked up is in it from now on.
became() {
	case $1.$name in
	active.*.service) sub=running ;;
	active.*.socket) sub=listening ;;
	active.*.timer | active.*.path) sub=waiting ;;
	active.*.mount) sub=mounted ;;
	active.*) sub=active ;;
	*) sub=dead ;;
	esac
	active=$1
	printf '%s %s %s\n' "$name" "$active" "$sub" >>"$held/units"
}

# setting NAME: prints the last value of one in the unit's file and its drop-ins.
setting() {
	[ -z "$file" ] || cat "$file" "$root"/etc/systemd/system/"$name".d/*.conf 2>/dev/null |
		sed -n "s/^[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" | tail -n 1
}

can_reload() {
	case $name in *.service) ;; *) return 1 ;; esac
	if [ -n "$source" ]; then
		grep -q reload "$source"
	elif [ -z "$file" ]; then
		[ "$load" = loaded ]
	else
		[ -n "$(setting ExecReload)" ] || [ "$(setting Type)" = notify-reload ]
	fi
}

# fits UNIT: whether $verb can be done with it; says why not, and sets $failure, as systemctl(1) does.
fits() {
	case $1 in *[*?[]*) return 0 ;; esac
	look_up "$1"
	case $load.$verb in
	*.reset-failed | masked.stop | masked.condstop) return 0 ;;
	masked.*)
		echo "Failed to $verb $name: Unit $name is masked." >&2
		failure=1
		;;
	not-found.stop | not-found.condstop | not-found.kill | not-found.try-* | not-found.cond* | not-found.*-try-*)
		echo "Failed to $verb $name: Unit $name not loaded." >&2
		failure=5
		;;
	not-found.*)
		echo "Failed to $verb $name: Unit $name not found." >&2
		failure=5
		;;
	*.reload)
		if [ "$active" != active ]; then
			echo "$name is not active, cannot reload." >&2
		elif can_reload; then
			return 0
		else
			echo "Failed to reload $name: Job type reload is not applicable for unit $name." >&2
		fi
		failure=1
		;;
	*.kill)
		[ "$active" != active ] || return 0
		echo "Failed to kill unit $name: Unit $name is not running." >&2
		failure=1
		;;
	*) return 0 ;;
	esac
	return 1
}
