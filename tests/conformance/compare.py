#!/usr/bin/env python3
"""Asks several servers of one zone the same questions and compares their replies field by field.

usage: compare.py ZONEFILE APEX OURS=ADDRESS OTHER=ADDRESS... [--seed N] [--limit N]

Questions: every name of the zone, names below and beside each, in odd letter case too, times types, times ways of
asking (plain, RD, EDNS, DO, CD and AD, TCP). A difference counts against us only where all the others agree with
each other; where they differ among themselves it is listed as their difference. Differences that standards leave
open are named in KNOWN and counted apart. Exit code 1 where one is not named there.
"""
import collections
import random
import sys

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.zone

TYPES = ("A AAAA NS SOA CNAME DNAME MX TXT SRV HTTPS SVCB CAA PTR NAPTR DS DNSKEY LOC HINFO RP SSHFP TLSA URI EUI48 "
         "TYPE65280 NULL ANY").split()
# Types whose data are names and numbers.
NAMES = set("NS CNAME DNAME SOA PTR MX SRV RP SVCB HTTPS".split())
WAYS = ("plain", "rd", "edns", "do", "cdad", "tcp")
TIMEOUT = 3


def flipped(label):
    """A label with every second letter in the other case."""
    return bytes(b ^ 0x20 if i % 2 and chr(b).isalpha() and b < 128 else b for i, b in enumerate(label))


def questions(path, apex):
    zone = dns.zone.from_file(path, origin=apex, relativize=False, check_origin=False)
    names = set(zone.nodes)
    for name in list(names):
        while name.is_subdomain(apex) and name != apex:
            name = name.parent()
            names.add(name)
    asked = set(names)
    for name in names:
        for label in (b"missing", b"*", b"a.b"):
            try:
                asked.add(dns.name.Name((label,) + name.labels))
                asked.add(dns.name.Name((b"deeper", label) + name.labels))
            except dns.exception.DNSException:
                pass  # too long
    odd = {dns.name.Name([flipped(label) for label in name.labels]) for name in names}
    asked = sorted(asked) + sorted(odd) + [dns.name.from_text("elsewhere.example.")]
    return [(name, rtype, way) for name in asked for rtype in TYPES for way in WAYS]


def query(name, rtype, way):
    message = dns.message.make_query(name, rtype, use_edns=way in ("edns", "do", "cdad"), payload=1232,
                                     want_dnssec=way == "do")
    message.flags = dns.flags.RD if way in ("rd", "cdad") else 0
    if way == "cdad":
        message.flags |= dns.flags.CD | dns.flags.AD
    return message


def ask(address, message, way):
    try:
        if way == "tcp":
            return dns.query.tcp(message, address, timeout=TIMEOUT)
        return dns.query.udp(message, address, timeout=TIMEOUT, ignore_unexpected=True)
    except dns.exception.DNSException as problem:
        return type(problem).__name__


def data_text(rdata):
    """Names compare without letter case, which compression changes at will (RFC 4343, 4.1)."""
    text = rdata.to_text()
    return text.lower() if dns.rdatatype.to_text(rdata.rdtype) in NAMES else text


def section(rrsets):
    return sorted(f"{r.name.to_text().lower()} {r.ttl} {dns.rdatatype.to_text(r.rdtype)} {data_text(data)}"
                  for r in rrsets for data in r)


def fields(reply):
    if isinstance(reply, str):
        return {"reply": reply}
    flags = reply.flags
    return {
        "rcode": dns.rcode.to_text(reply.rcode()),
        **{bit: bool(flags & getattr(dns.flags, bit)) for bit in ("AA", "TC", "RD", "RA", "AD", "CD")},
        "edns": (reply.edns, bool(reply.ednsflags & dns.flags.DO)) if reply.edns >= 0 else None,
        "question": [f"{q.name} {q.rdtype}" for q in reply.question],
        "answer": section(reply.answer),
        "authority": section(reply.authority),
        "additional": section(reply.additional),
    }


def known(name, rtype, way, field, ours, other):
    """Why a difference in a field may be; None where it may not."""
    if rtype == "ANY":
        return "ANY: one RRset is enough (RFC 8482, 4.1)"
    if field == "additional":
        if not ours.get("AA"):
            return None
        return "additional section of an authoritative answer is optional (RFC 1034, 4.3.2 step 6; RFC 2181, 9)"
    if ours.get("TC") and way in ("plain", "rd") and b"dlong" in name.canonicalize().labels:
        return "names in full instead of compressed reach 512 bytes sooner; whole with EDNS or TCP (RFC 1035, 4.1.4)"
    if ours.get("TC") and other.get("TC") and field in ("answer", "authority"):
        return "what a truncated reply still holds is to be ignored (RFC 2181, 9)"
    if field == "CD":
        return "CD is copied by security-aware servers (RFC 4035, 3.1.6), cleared by others"
    if ours.get("rcode") == "REFUSED" == other.get("rcode"):
        return "a refusal may say what it likes besides its code"
    return None


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    options = dict(zip(sys.argv[1:], sys.argv[2:]))
    arguments = [a for a in arguments if a not in (options.get("--seed"), options.get("--limit"))]
    path, apex = arguments[0], dns.name.from_text(arguments[1])
    servers = [server.split("=") for server in arguments[2:]]
    asked = questions(path, apex)
    random.Random(int(options.get("--seed", 1))).shuffle(asked)
    asked = asked[:int(options.get("--limit", len(asked)))]

    against, among, allowed = collections.Counter(), collections.Counter(), collections.Counter()
    examples = {}
    for name, rtype, way in asked:
        message = query(name, rtype, way)
        replies = [(server, fields(ask(address, message, way))) for server, address in servers]
        (_, ours), others = replies[0], replies[1:]
        for field in sorted({field for _, reply in replies for field in reply}):
            values = [reply.get(field) for _, reply in others]
            mine = ours.get(field)
            differing = [(server, reply) for server, reply in others if reply.get(field) != mine]
            if not differing:
                continue
            reasons = {known(name, rtype, way, field, ours, reply) for _, reply in differing}
            if None not in reasons:
                for reason in reasons:
                    allowed[reason] += 1
                continue
            agree = all(value == values[0] for value in values)
            group = against if agree else among
            # Sorted into kinds, so that one cause is one line.
            kind = (field, ours.get("rcode"), "other than " + " ".join(sorted(server for server, _ in differing)))
            group[kind] += 1
            examples.setdefault(kind, (f"{name} {rtype} {way}", mine, [(server, reply.get(field)) for server, reply in others]))

    print(f"questions={len(asked)} servers={len(servers)} against_us={sum(against.values())} "
          f"others_differ={sum(among.values())} allowed={sum(allowed.values())}")
    for reason, count in allowed.most_common():
        print(f"  allowed {count:6}  {reason}")
    for title, group in (("against us", against), ("others differ", among)):
        for kind, count in group.most_common(40):
            name, mine, theirs = examples[kind]
            print(f"  {title} {count:5}  {' '.join(str(part) for part in kind)}: e.g. {name}")
            print(f"      {servers[0][0]}: {mine}")
            for server, value in theirs:
                print(f"      {server}: {value}")
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main())
