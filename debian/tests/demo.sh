# Sourced: the demo, and what waits for it.

work=${AUTOPKGTEST_TMP:-$(mktemp -d)}
demo=$work/demo
server=

start_demo() {
	chmod 755 "$work"
	qmailldap demo --directory "$demo" --port "$1" >"$work/demo.log" 2>&1 &
	server=$!
	trap 'kill $server' EXIT
	wait_for "$1" "$work/demo.log"
}

# A port that answers, 30 seconds at most; else what is in a log.
wait_for() {
	left=300
	until mail -I "pop3://127.0.0.1:$1/" >/dev/null || [ $? != 7 ]; do
		left=$((left - 1))
		if [ $left = 0 ]; then cat "$2" >&2; exit 1; fi
		sleep 0.1
	done
}

mail() {
	curl --silent --show-error --max-time 20 "$@" 2>"$work/curl.log"
}
