# Sourced with $scripts set: sets $environment, the directory of the pinned dependencies in .env/ of the clone, and
# makes it if it is not there. Starts no process when it is.
pins=
while read -r pin _; do
	case $pin in *==*) pins=$pins-${pin#*==} ;; esac
done <"$scripts/requirements.txt"
environment=$scripts/../.env/deps$pins

# Exit codes 1, 126 and 127 are promises of snapbreaker (rolled back; the command …): what fails before it is 70.
[ -x "$environment/python3" ] || "$scripts/lib/prepare" "$environment" || exit 70
