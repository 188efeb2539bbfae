#!/usr/bin/env bash
# Selvedge among other DNS software: tools that ask it, resolvers and forwarders in front of it, other servers with
# the same zone beside it. Prints a table, one line a check, with the details below what failed. As root;
# needs `make build` and, for all of it, `tests/setup.sh peers`. Takes about three minutes.
#
#   tests/conformance/run.sh [--only WORD]      only the parts whose name holds WORD: dig kdig unbound kresd named
#                                               dnsmasq dnsviz zonemaster compare
#   LIMIT=N   questions of the comparison (all)     SEED=N  their order (1)
#
# A part whose tool is not installed is SKIPPED with the reason. Exit code 1 where a check failed. Everything runs
# in two network namespaces made here; nothing outside is asked, nothing is left.
set -u -o pipefail
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
zone=$here/edge.test.zone
only='' failed=0
[ "${1:-}" != --only ] || only=${2:?a word is missing}
[ "$(id -u)" = 0 ] || { echo "SKIPPED (needs root): conformance"; exit 0; }

readonly SERVER=selv-cs$$ CLIENT=selv-cc$$
# Ours, and its IPv6 address; a signed root; Knot, NSD and BIND with the same zone; the client.
readonly OURS=192.0.2.53 OURS6=fd53::53 ROOT=192.0.2.100 KNOT=192.0.2.101 NSD=192.0.2.102 NAMED=192.0.2.103 ASKER=192.0.2.200
work='' pids=() table=()
say() { echo "conformance: $*" >&2; }
s() { ip netns exec "$SERVER" "$@"; }
c() { ip netns exec "$CLIENT" "$@"; }
cleanup() {
    local pid i
    trap - EXIT
    for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null; done
    for i in $(seq 50); do
        [ -n "$(ip netns pids "$SERVER" 2>/dev/null)$(ip netns pids "$CLIENT" 2>/dev/null)" ] || break
        sleep 0.1
    done
    # Only ours can be in namespaces that were made here.
    for pid in $(ip netns pids "$SERVER" 2>/dev/null) $(ip netns pids "$CLIENT" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null; done
    ip netns del "$SERVER" 2>/dev/null
    ip netns del "$CLIENT" 2>/dev/null
    [ -z "$work" ] || rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
work=$(mktemp -d "${TMPDIR:-/tmp}/selvedge-conformance.XXXXXX")
chmod 755 "$work"

# --- results ----------------------------------------------------------------------------------------------

result() { # result PART VERDICT WHAT [DETAIL]
    local line
    line=$(printf '%-10s %-7s %s' "$1" "$2" "$3")
    table+=("$line")
    echo "$line"
    [ "$2" != FAILED ] || { failed=1; sed 's/^/    | /' <<<"${4:-}"; }
}
wanted() { case $1 in *"$only"*) true ;; *) false ;; esac }
need() { # need PART TOOL...: whether they are there
    local part=$1 tool
    wanted "$part" || return 1
    shift
    for tool; do
        command -v "$tool" >/dev/null || { result "$part" SKIPPED "$tool is not installed (tests/setup.sh peers)"; return 1; }
    done
}
# check PART WHAT REGEX... -- COMMAND...: the output matches each; one that begins with ! must not be found.
check() {
    local part=$1 what=$2 patterns=() output pattern wrong=''
    shift 2
    while [ "$1" != -- ]; do patterns+=("$1"); shift; done
    shift
    output=$("$@" 2>&1)
    for pattern in "${patterns[@]}"; do
        case $pattern in
        !*) ! grep -Eqi -- "${pattern#!}" <<<"$output" || wrong="has /${pattern#!}/" ;;
        *) grep -Eqi -- "$pattern" <<<"$output" || wrong="lacks /$pattern/" ;;
        esac
    done
    if [ -z "$wrong" ]; then result "$part" ok "$what"; else result "$part" FAILED "$what" "$wrong"$'\n'"\$ $*"$'\n'"$output"; fi
}
await() { # await ADDRESS NAME: a server answers within ten seconds
    local i
    for i in $(seq 100); do
        c dig +time=1 +tries=1 +norec "@$1" "$2" SOA 2>/dev/null | grep -q 'status: [NRS]' && return 0
        sleep 0.1
    done
    return 1
}
start() { # start NAMESPACE LOG COMMAND...
    local namespace=$1 log=$work/$2.log
    shift 2
    ip netns exec "$namespace" "$@" >"$log" 2>&1 </dev/null &
    pids+=($!)
}

stop() { # ends what was started last
    local i
    kill -TERM "${pids[-1]}" 2>/dev/null
    for i in $(seq 30); do kill -0 "${pids[-1]}" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "${pids[-1]}" 2>/dev/null
    wait "${pids[-1]}" 2>/dev/null
    unset 'pids[-1]'
}

# --- the network and the servers --------------------------------------------------------------------------

ip netns add "$SERVER" && ip netns add "$CLIENT" || exit 1
ip link add s0 netns "$SERVER" type veth peer name c0 netns "$CLIENT" || exit 1
for address in $OURS $ROOT $KNOT $NSD $NAMED; do s ip address add $address/24 dev s0; done
s ip address add $OURS6/64 dev s0 nodad
c ip address add $ASKER/24 dev c0
c ip address add fd53::200/64 dev c0 nodad
for i in 2 3 4 5; do c ip address add 127.0.0.$i/8 dev lo; done
s ip link set lo up; s ip link set s0 up; c ip link set lo up; c ip link set c0 up
# Some tools look whether there is a way to the outside before they ask anything.
c ip route add default via $ROOT
# XDP sees only whole checksums, and XDP_TX on one end of a veth pair needs GRO or a program on the other.
c ethtool -K c0 tx off gro on >/dev/null; s ethtool -K s0 gro on >/dev/null

LAB_NS=$SERVER LAB_IF=s0 LAB_IP=$OURS LAB_IP6=$OURS6 LAB_LOG=info start "$SERVER" selvedge \
    bash -c 'mount -t bpf bpf /sys/fs/bpf && exec "$@"' zone "$here/../bench/zone" "$zone" edge.test.
await $OURS edge.test || { say "selvedged does not answer:"; cat "$work/selvedge.log" >&2; exit 1; }

# A signed root that delegates edge.test, unsigned, to us: for resolvers that iterate and validate.
root=''
if command -v knotd keymgr >/dev/null; then
    mkdir -p "$work/root/run" "$work/root/state"
    cat >"$work/root/zone" <<EOF
\$TTL 3600
. SOA ns.root. host. 1 3600 900 86400 300
. NS ns.root.
ns.root. A $ROOT
edge.test. NS ns1.edge.test.
edge.test. NS ns2.edge.test.
ns1.edge.test. A $OURS
ns1.edge.test. AAAA $OURS6
ns2.edge.test. A $OURS
www.elsewhere.example. A 192.0.2.99
EOF
    cat >"$work/root/conf" <<EOF
server:
    rundir: $work/root/run
    listen: $ROOT@53
    user: root
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: $work/root/state
policy:
  - id: one
    single-type-signing: on
zone:
  - domain: .
    file: $work/root/zone
    zonefile-sync: -1
    journal-content: none
    dnssec-signing: on
    dnssec-policy: one
EOF
    start "$SERVER" root knotd -c "$work/root/conf"
    if await $ROOT .; then
        root=yes
        c dig +norec +noall +answer @$ROOT . DNSKEY >"$work/root.key"
        keymgr -c "$work/root/conf" . ds 2>/dev/null | awk '$5 == 2 || /SHA256/ || NR > 0 { print; exit }' >"$work/root.ds"
    else
        say "no root: $(tail -n 2 "$work/root.log")"
    fi
fi

# --- dig --------------------------------------------------------------------------------------------------

ask() { c dig +nocmd +time=2 +tries=1 "@$OURS" "$@"; }
ask6() { c dig +nocmd +time=2 +tries=1 "@$OURS6" "$@"; }
part_dig() {
    need dig dig || return
    local d='check dig'
    $d '+noedns' 'status: NOERROR' 'flags: qr aa rd;' 'ANSWER: 4' '!OPT PSEUDO' '!recursion available' -- ask +noedns www.edge.test
    $d 'recursion is asked for, not available' 'recursion requested but not available' 'flags: qr aa rd;' -- ask +noedns +rec www.edge.test
    $d '+norecurse' 'flags: qr aa;' 'ANSWER: 4' -- ask +norecurse www.edge.test
    $d '+edns=0' 'EDNS: version: 0, flags:; udp: 1232' 'ANSWER: 4' -- ask +edns=0 +nocookie www.edge.test
    $d '+nocookie has none' '!COOKIE' 'ANSWER: 4' -- ask +nocookie www.edge.test
    $d '+cookie is answered with a server cookie (RFC 9018)' 'COOKIE: [0-9a-f]{16}01000000[0-9a-f]{24} \(good\)' 'ANSWER: 4' -- ask +cookie www.edge.test
    $d '+cookie of a name that is not there' 'NXDOMAIN' 'COOKIE: .*good' -- ask +cookie missing.edge.test
    $d '+cookie over TCP' 'COOKIE: .*good' 'TCP' -- ask +cookie +tcp www.edge.test
    $d 'a cookie too short is a FORMERR (RFC 7873, 5.2.2)' 'FORMERR' -- ask +nocookie +ednsopt=10:0011 www.edge.test
    $d 'a wrong server cookie is answered with a good one' 'NOERROR' 'COOKIE: 0011223344556677' -- ask +cookie=00112233445566770011223344556677 www.edge.test
    $d '+dnssec: DO is echoed, no signatures' 'flags: do; udp: 1232' '!RRSIG' 'ANSWER: 4' '!flags:[^;]* ad' -- ask +dnssec www.edge.test
    $d '+cd' 'status: NOERROR' 'ANSWER: 4' -- ask +cd www.edge.test
    $d '+ad is not believed' 'status: NOERROR' '!flags:[^;]* ad' -- ask +ad www.edge.test
    $d '+edns=1 is BADVERS with version 0' 'status: BADVERS' 'version: 0' 'ANSWER: 0' -- ask +edns=1 +noednsneg www.edge.test
    $d '+ednsopt of no known option is ignored' 'NOERROR' 'ANSWER: 4' '!OPT=65001' -- ask +ednsopt=65001:aabb www.edge.test
    $d '+ednsflags: unknown flags are not echoed (RFC 6891, 6.1.4)' 'NOERROR' 'flags:; udp' '!MBZ' -- ask +ednsflags=0x40 www.edge.test
    $d '+subnet is ignored: no scope for who is not listed' 'ANSWER: 4' '!CLIENT-SUBNET' -- ask +subnet=198.51.100.0/24 www.edge.test
    $d '+nsid is not given' 'ANSWER: 4' '!NSID' -- ask +nsid www.edge.test
    $d '+padding and +keepalive over TCP' 'ANSWER: 4' -- ask +tcp +padding=128 +keepalive www.edge.test
    $d '+zflag: Z is cleared (RFC 1035, 4.1.1)' 'NOERROR' '!flags:[^;]*MBZ' -- ask +zflag www.edge.test
    $d '+bufsize=512: TC' 'flags: qr aa tc' -- ask +bufsize=512 +ignore big.edge.test TXT
    $d '+bufsize=1232' 'flags: qr aa rd;' 'ANSWER: 3' -- ask +bufsize=1232 +ignore big.edge.test TXT
    $d '+bufsize=4096 is answered with 1232 at most' 'udp: 1232' 'ANSWER: 3' -- ask +bufsize=4096 +ignore big.edge.test TXT
    $d '+bufsize=0 is 512 (RFC 6891, 6.2.3)' 'flags: qr aa tc' -- ask +edns=0 +bufsize=1 +ignore big.edge.test TXT
    $d 'TC leads to TCP' 'ANSWER: 3' 'TCP' -- ask +noedns big.edge.test TXT
    $d '+tcp' 'ANSWER: 4' '\(TCP\)' -- ask +tcp www.edge.test
    $d '+tcp +keepopen: two queries' 'ANSWER: 4' 'ANSWER: 2' -- ask +tcp +keepopen www.edge.test A www.edge.test AAAA
    $d 'IPv6' 'ANSWER: 4' 'fd53::53' -- ask6 www.edge.test
    $d 'IPv6, no such name' 'NXDOMAIN' 'SOA' -- ask6 missing.edge.test
    $d 'letter case is echoed' 'wWw.eDgE.tEsT' 'ANSWER: 4' -- ask +noedns wWw.eDgE.tEsT
    $d 'NODATA with SOA, TTL of the minimum' 'NOERROR' 'ANSWER: 0' 'edge.test.[[:space:]]+60[[:space:]]+IN[[:space:]]+SOA' -- ask v4only.edge.test AAAA
    $d 'NXDOMAIN with SOA, TTL of the minimum' 'NXDOMAIN' 'edge.test.[[:space:]]+60[[:space:]]+IN[[:space:]]+SOA' -- ask missing.edge.test
    $d 'empty non-terminal' 'NOERROR' 'ANSWER: 0' -- ask b.c.edge.test
    $d 'wildcard' 'any.wild.edge.test.*192.0.2.8' -- ask any.wild.edge.test
    $d 'SOA as the file has it' 'ns1.edge.test. hostmaster.edge.test. 2026010101 3600 900 604800 60' -- ask edge.test SOA
    $d 'referral' 'flags: qr;' 'ANSWER: 0, AUTHORITY: 2' 'ns.sub.edge.test.*192.0.2.10' -- ask +norec host.sub.edge.test
    $d 'DS at a delegation is ours' 'flags: qr aa' '12345 13 2' -- ask +norec signed.edge.test DS
    $d 'CNAME chain' 'alias.edge.test.*CNAME' 'www.edge.test.*192.0.2' -- ask alias2.edge.test
    $d 'ANY is one RRset (RFC 8482)' 'NOERROR' 'flags: qr aa' -- ask +notcp ANY www.edge.test
    $d 'AXFR is refused' 'REFUSED|Transfer failed' '!MiXeD' -- ask AXFR edge.test
    $d 'IXFR is refused' 'REFUSED|Transfer failed' '!MiXeD' -- ask IXFR=1 edge.test
    $d 'CH TXT version.bind: what we are, no version' 'NOERROR' '"selvedge"' -- ask CH TXT version.bind
    $d 'CH TXT id.server: the node (RFC 4892)' 'NOERROR' 'id.server.[[:space:]]+0[[:space:]]+CH[[:space:]]+TXT' -- ask CH TXT id.server
    $d 'CH TXT authors.bind is refused' 'REFUSED' -- ask CH TXT authors.bind
    $d 'class ANY is answered without AA (RFC 1035, 6.2)' 'NOERROR' 'ANSWER: 4' '!flags:[^;]* aa' -- ask -c ANY www.edge.test
    $d 'a TSIG key that we do not have: NOTAUTH (RFC 8945, 5.2.1)' 'NOTAUTH' 'BADKEY' -- ask -y hmac-sha256:key:AAAA www.edge.test
    $d 'DNAME (RFC 6672)' 'moved.edge.test.*DNAME.*wild.edge.test' 'a.moved.edge.test.*300.*CNAME.*a.wild.edge.test' 'a.wild.edge.test.*192.0.2.8' -- ask a.moved.edge.test
    $d 'DNAME: too long a name is YXDOMAIN' 'YXDOMAIN' 'ANSWER: 1' -- ask +tcp "$(printf 'x%.0s' {1..63}).dlong.edge.test"
    $d 'class HS is refused' 'REFUSED' -- ask -c HS www.edge.test
    $d 'names of others are refused' 'REFUSED' 'flags: qr rd;' -- ask www.elsewhere.example
    local opcode
    for opcode in IQUERY STATUS RESERVED3 NOTIFY UPDATE; do
        $d "+opcode=$opcode" 'NOTIMP' "opcode: $opcode" -- ask "+opcode=$opcode" www.edge.test
    done
    $d '+header-only: no question' 'FORMERR|NOTIMP|REFUSED' -- ask +header-only +nocookie www.edge.test
    $d '+qr +multiline +nssearch: same serial everywhere' 'SOA' -- ask +multiline +qr edge.test SOA
    $d 'type 0, 65535 and reserved ones' '!timed out' 'status: (NOERROR|FORMERR)' -- ask -t TYPE65535 www.edge.test
}

part_kdig() {
    need kdig kdig || return
    k() { c kdig +time=2 +retry=0 "@$OURS" "$@"; }
    check kdig '+cookie' 'status: NOERROR' 'COOKIE: ' 'ANSWER: 4' -- k +edns +cookie www.edge.test
    check kdig '+cookie=CLIENT+SERVER' 'NOERROR' 'COOKIE: 0011223344556677' -- k +edns +cookie=00112233445566770011223344556677 www.edge.test
    check kdig '+badcookie is never said' '!BADCOOKIE' -- k +edns +cookie www.edge.test
    check kdig '+subnet' 'NOERROR' 'ANSWER: 4' -- k +subnet=198.51.100.0/24 www.edge.test
    check kdig '+tcp' 'NOERROR' 'ANSWER: 3' -- k +tcp big.edge.test TXT
    check kdig '+edns=1' 'BADVERS' -- k +edns=1 www.edge.test
    check kdig '+padding +nsid' 'NOERROR' -- k +padding=128 +nsid www.edge.test
}

# --- resolvers in front of us -----------------------------------------------------------------------------

# The same questions to any resolver. $1 part, $2 address, $3 how it is set up.
through() {
    local part=$1 how=$3
    r() { c dig +nocmd +time=5 +tries=1 "$@"; }
    if ! await "$2" edge.test; then result "$part" FAILED "$how: does not answer" "$(tail -n 5 "$work/$part.log")"; return; fi
    check "$part" "$how: A" 'NOERROR' 'ANSWER: 4' -- r "@$2" www.edge.test
    check "$part" "$how: AAAA" 'ANSWER: 2' -- r "@$2" www.edge.test AAAA
    check "$part" "$how: HTTPS" 'alpn=' -- r "@$2" www.edge.test HTTPS
    check "$part" "$how: CNAME chain" 'ANSWER: 6' -- r "@$2" alias2.edge.test
    check "$part" "$how: CNAME to nothing" 'NXDOMAIN' -- r "@$2" nowhere.edge.test
    check "$part" "$how: wildcard" '192.0.2.8' -- r "@$2" x.y.wild.edge.test
    check "$part" "$how: deep name under empty non-terminals" '192.0.2.6' -- r "@$2" a.b.c.edge.test
    check "$part" "$how: NXDOMAIN" 'NXDOMAIN' 'SOA' -- r "@$2" missing.edge.test
    check "$part" "$how: NODATA" 'NOERROR' 'ANSWER: 0' -- r "@$2" v4only.edge.test AAAA
    check "$part" "$how: big answer" 'ANSWER: 3' -- r "@$2" +bufsize=4096 big.edge.test TXT
    check "$part" "$how: +dnssec is not bogus" 'NOERROR' '!SERVFAIL' '!flags:[^;]* ad' -- r "@$2" +dnssec www.edge.test
    case $how in
    root*) check "$part" "$how: the signed root above is validated" 'NOERROR' 'flags:[^;]* ad' -- r "@$2" +dnssec ns.root ;;
    esac
    check "$part" "$how: type 65280" '0A0B0C' -- r "@$2" unknown.edge.test TYPE65280
}

unbound_conf() { # unbound_conf ADDRESS VALIDATION MODE
    cat <<EOF
server:
    interface: $1
    username: ""
    chroot: ""
    directory: "$work"
    pidfile: ""
    use-syslog: no
    num-threads: 1
    do-daemonize: no
    access-control: 0.0.0.0/0 allow
    do-not-query-localhost: no
    use-caps-for-id: yes
    qname-minimisation: yes
    qname-minimisation-strict: yes
    harden-below-nxdomain: yes
    harden-referral-path: yes
    aggressive-nsec: yes
    local-zone: "test." nodefault
    module-config: "$2"
remote-control:
    control-enable: no
EOF
    case $3 in
    stub) printf 'stub-zone:\n    name: edge.test\n    stub-addr: %s\n' "$OURS" ;;
    forward) printf 'forward-zone:\n    name: edge.test\n    forward-addr: %s\n' "$OURS" ;;
    root)
        printf '. 3600000 NS ns.root.\nns.root. 3600000 A %s\n' "$ROOT" >"$work/hints"
        # A second "server:" adds to the first.
        printf 'server:\n    root-hints: %s/hints\n    trust-anchor-file: %s/root.key\n' "$work" "$work"
        ;;
    esac
}
part_unbound() {
    need unbound unbound || return
    local mode validation
    for mode in stub forward root; do
        for validation in iterator 'validator iterator'; do
            [ "$mode" != root ] || [ "$validation" != iterator ] || continue
            [ "$mode" != root ] || [ -n "$root" ] || { result unbound SKIPPED "no signed root (needs knot)"; continue; }
            unbound_conf 127.0.0.2 "$validation" "$mode" >"$work/unbound.conf"
            start "$CLIENT" unbound unbound -d -c "$work/unbound.conf"
            through unbound 127.0.0.2 "$mode, $validation, 0x20, strict qname minimisation"
            stop
        done
    done
}
part_kresd() {
    need kresd kresd || return
    local mode
    for mode in stub forward root; do
        [ "$mode" != root ] || [ -n "$root" ] || { result kresd SKIPPED "no signed root (needs knot)"; continue; }
        mkdir -p "$work/kresd"
        {
            echo "net.listen('127.0.0.3', 53)"
            echo "net.ipv6 = false"
            echo "cache.size = 10 * MB"
            echo "modules.load('hints')"
            echo "modules.unload('ta_update') modules.unload('ta_signal_query') modules.unload('priming')"
            case $mode in
            stub) echo "trust_anchors.remove('.') policy.add(policy.suffix(policy.STUB('$OURS'), {todname('edge.test')}))" ;;
            forward) echo "trust_anchors.remove('.') policy.add(policy.suffix(policy.FORWARD('$OURS'), {todname('edge.test')}))" ;;
            root)
                echo "trust_anchors.remove('.') trust_anchors.add_file('$work/root.key', true)"
                echo "hints.root({['ns.root.'] = '$ROOT'})"
                # The zone lies below "test.", which it would answer by itself (RFC 6761).
                ;;
            esac
            [ "$mode" = stub ] || echo "policy.add(policy.suffix(policy.PASS, {todname('edge.test')}))"
        } >"$work/kresd.conf"
        start "$CLIENT" kresd kresd -n -c "$work/kresd.conf" "$work/kresd"
        through kresd 127.0.0.3 "$mode, 0x20, qname minimisation$([ $mode != root ] || echo ', validation')"
        stop
        rm -rf "$work/kresd"
    done
}
part_named() {
    need named named || return
    [ -n "$root" ] || { result named SKIPPED "no signed root (needs knot)"; return; }
    mkdir -p "$work/resolver"
    cat >"$work/resolver.conf" <<EOF
options {
    directory "$work/resolver"; pid-file none; session-keyfile "$work/resolver/key"; listen-on { 127.0.0.5; }; listen-on-v6 { none; };
    recursion yes; allow-query { any; }; dnssec-validation yes; qname-minimization strict; empty-zones-enable no;
};
controls { };
zone "." { type hint; file "$work/hints"; };
trust-anchors { $(awk '$4 == "DNSKEY" && $5 == 257 { key = ""; for (i = 8; i <= NF; i++) key = key $i
        printf "\".\" static-key %s %s %s \"%s\"; ", $5, $6, $7, key }' "$work/root.key") };
EOF
    printf '. 3600000 NS ns.root.\nns.root. 3600000 A %s\n' "$ROOT" >"$work/hints"
    start "$CLIENT" named named -g -4 -c "$work/resolver.conf"
    through named 127.0.0.5 'root, validation, cookies, strict qname minimisation'
    stop
}
part_dnsmasq() {
    need dnsmasq dnsmasq || return
    start "$CLIENT" dnsmasq dnsmasq --keep-in-foreground --no-resolv --no-hosts --conf-file=/dev/null --pid-file= \
        --listen-address=127.0.0.4 --bind-interfaces --server="/edge.test/$OURS" --user=root --log-facility=-
    if await 127.0.0.4 edge.test; then
        check dnsmasq 'forwarder: A' 'ANSWER: 4' -- c dig +nocmd @127.0.0.4 www.edge.test
        check dnsmasq 'forwarder: NXDOMAIN' 'NXDOMAIN' -- c dig +nocmd @127.0.0.4 missing.edge.test
        check dnsmasq 'forwarder: NODATA' 'NOERROR' 'ANSWER: 0' -- c dig +nocmd @127.0.0.4 v4only.edge.test AAAA
        check dnsmasq 'forwarder: CNAME chain' 'ANSWER: 6' -- c dig +nocmd @127.0.0.4 alias2.edge.test
        check dnsmasq 'forwarder: big answer over TCP' 'ANSWER: 3' -- c dig +nocmd +tcp @127.0.0.4 big.edge.test TXT
        check dnsmasq 'forwarder: second answer from its cache' 'ANSWER: 4' -- c dig +nocmd @127.0.0.4 www.edge.test
    else
        result dnsmasq FAILED 'does not answer' "$(tail -n 5 "$work/dnsmasq.log")"
    fi
    stop
}

# --- tools that look at the zone --------------------------------------------------------------------------

part_dnsviz() {
    need dnsviz dnsviz || return
    # Below the root of this lab, and with its name server named, for there is no other way to either.
    if ! c timeout 100 dnsviz probe -4 -A -x ".:ns.root=$ROOT" -x "edge.test+:ns1.edge.test=$OURS" -R A,AAAA,MX,TXT,SOA,NS,CNAME,HTTPS \
        edge.test www.edge.test alias.edge.test missing.edge.test v4only.edge.test any.wild.edge.test >"$work/probe.json" 2>"$work/dnsviz.log"; then
        result dnsviz FAILED 'probe' "$(cat "$work/dnsviz.log")"
        return
    fi
    check dnsviz 'probe and grok: no errors and no warnings' '!"errors"' '!"warnings"' -- \
        dnsviz grok -l warning -r "$work/probe.json"
}
part_zonemaster() {
    need zonemaster zonemaster-cli || return
    [ -n "$root" ] || { result zonemaster SKIPPED "no signed root (needs knot)"; return; }
    printf '. 3600000 NS ns.root.\nns.root. 3600000 A %s\n' "$ROOT" >"$work/hints"
    # Undelegated: what a test would see before the zone is delegated. What it says of the lab itself (one network,
    # documentation addresses, no way to the outside) says nothing of us.
    c timeout 120 zonemaster-cli --hints "$work/hints" --no-ipv6 --level NOTICE --show-testcase --raw --test Nameserver --test Consistency --test Zone --test Syntax --test Basic \
        --ns "ns1.edge.test/$OURS" --ns "ns2.edge.test/$OURS" edge.test >"$work/zonemaster.txt" 2>&1
    check zonemaster 'Basic, Consistency, Nameserver, Syntax, Zone: ends without error' 'ZONE0' '!(WARNING|ERROR|CRITICAL)' -- cat "$work/zonemaster.txt"
}

# --- the same zone in other servers -----------------------------------------------------------------------

part_compare() {
    wanted compare || return
    /usr/bin/python3 -c 'import dns.zone' 2>/dev/null || { result compare SKIPPED "python3-dnspython is not installed"; return; }
    local others=()
    if command -v knotd >/dev/null; then
        mkdir -p "$work/knot/run" "$work/knot/state"
        printf '%s\n' 'server:' " rundir: $work/knot/run" " listen: $KNOT@53" ' user: root' ' udp-workers: 1' ' tcp-workers: 1' \
            ' background-workers: 1' 'log:' ' - target: stderr' '   any: warning' 'database:' " storage: $work/knot/state" \
            'zone:' ' - domain: edge.test' "   file: $zone" '   zonefile-sync: -1' '   journal-content: none' '   semantic-checks: off' >"$work/knot.conf"
        start "$SERVER" knot knotd -c "$work/knot.conf"
        if await $KNOT edge.test; then others+=("knot=$KNOT"); else say "knot: $(tail -n 3 "$work/knot.log")"; fi
    fi
    if command -v nsd >/dev/null; then
        cat >"$work/nsd.conf" <<EOF
server:
    ip-address: $NSD
    username: ""
    chroot: ""
    pidfile: ""
    zonesdir: "$work"
    zonelistfile: "$work/nsd.list"
    xfrdfile: ""
    xfrdir: "$work"
    database: ""
    server-count: 1
    minimal-responses: yes
    refuse-any: no
    round-robin: no
    rrl-ratelimit: 0
    ipv4-edns-size: 1232
remote-control:
    control-enable: no
zone:
    name: edge.test
    zonefile: "$zone"
EOF
        start "$SERVER" nsd nsd -d -c "$work/nsd.conf"
        if await $NSD edge.test; then others+=("nsd=$NSD"); else say "nsd: $(tail -n 3 "$work/nsd.log")"; fi
    fi
    if command -v named >/dev/null; then
        mkdir -p "$work/named"
        cat >"$work/named.conf" <<EOF
options {
    directory "$work/named"; pid-file none; session-keyfile "$work/named/key"; listen-on { $NAMED; }; listen-on-v6 { none; };
    recursion no; allow-query { any; }; minimal-responses yes; max-udp-size 1232; edns-udp-size 1232; empty-zones-enable no;
};
controls { };
zone "edge.test" { type primary; file "$zone"; check-names ignore; check-integrity no; };
EOF
        start "$SERVER" named named -g -4 -c "$work/named.conf"
        if await $NAMED edge.test; then others+=("bind=$NAMED"); else say "named: $(tail -n 3 "$work/named.log")"; fi
    fi
    if [ ${#others[@]} -lt 2 ]; then
        result compare SKIPPED "needs two of knot, nsd and bind9 (tests/setup.sh peers)"
        return
    fi
    c /usr/bin/python3 "$here/raw.py" "selvedge=$OURS" "${others[@]}" >"$work/raw.txt" 2>&1
    local code=$? verdict=ok
    [ $code = 0 ] || verdict=FAILED
    result compare $verdict "messages that no tool writes, with ${others[*]%%=*}: $(tail -n 1 "$work/raw.txt")" "$(cat "$work/raw.txt")"
    c /usr/bin/python3 "$here/compare.py" "$zone" edge.test "selvedge=$OURS" "${others[@]}" --seed "${SEED:-1}" --limit "${LIMIT:-1000000}" \
        >"$work/compare.txt" 2>&1
    code=$?
    cat "$work/compare.txt"
    if [ $code = 0 ]; then
        result compare ok "with ${others[*]%%=*}: $(head -n 1 "$work/compare.txt")"
    else
        result compare FAILED "with ${others[*]%%=*}: $(head -n 1 "$work/compare.txt")"
    fi
}

for part in dig kdig unbound kresd named dnsmasq dnsviz zonemaster compare; do
    wanted "$part" && "part_$part"
done
printf '%s\n' "${table[@]}" | awk '{ count[$2]++ } END { printf "checks=%d ok=%d failed=%d skipped=%d\n", NR, count["ok"], count["FAILED"], count["SKIPPED"] }'
grep -E ' (WARN|ERROR) ' "$work/selvedge.log" | head -n 20
exit $failed
