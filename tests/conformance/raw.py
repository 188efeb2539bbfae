#!/usr/bin/env python3
"""Sends messages that no tool writes to several servers of one zone and compares what kind of reply they get.

usage: raw.py OURS=ADDRESS OTHER=ADDRESS...

Each message goes over UDP and TCP. Compared are RCODE, opcode, AA, TC and whether there is an OPT; "none" is no reply. Ours has to be as that of one of the others at least: where they agree there is
one right reply, where they do not the standards leave it open. What is open and done otherwise by all of them is
named in KNOWN. Exit code 1 where a difference is not named there.
"""
import socket
import struct
import sys

import dns.name

NAME = "www.edge.test"
TIMEOUT = 0.7
# QCLASS, TYPE and option codes.
IN, CH, NONE, ANY = 1, 3, 254, 255
A, SOA, TXT, OPT, TSIG, IXFR, AXFR = 1, 6, 16, 41, 250, 251, 252
NSID, SUBNET, EXPIRE, COOKIE, KEEPALIVE, PADDING, CHAIN, TAG, ERROR = 3, 8, 9, 10, 11, 12, 13, 14, 15

# Messages that we answer as none of the others does, with the reason.
KNOWN = {
    "NOTIFY": "each says something else; we know no NOTIFY, which NOTIMP is for (RFC 1035, 4.1.1)",
    "NOTIFY of an address": "as NOTIFY",
    "NOTIFY without a question": "as NOTIFY",
    "UPDATE without a question": "NSD, which has no UPDATE either, closes the connection",
    "AXFR of the zone": "NSD refuses over TCP as we do; over UDP, which RFC 5936, 4.2 leaves undefined, we refuse too",
}


def wire(text):
    return dns.name.from_text(text).to_wire()


def query(name=NAME, qtype=A, qclass=IN, flags=0, counts=(1, 0, 0, 0), more=b""):
    name = name if isinstance(name, bytes) else wire(name)
    return struct.pack(">HHHHHH", 0x1234, flags, *counts) + name + struct.pack(">HH", qtype, qclass) + more


def header(flags, *counts, more=b""):
    return struct.pack(">HHHHHH", 0x1234, flags, *counts) + more


def opt(size=1232, version=0, flags=0, options=b"", owner=b"\0", high=0):
    return owner + struct.pack(">HHBBHH", OPT, size, high, version, flags, len(options)) + options


def option(code, data=b""):
    return struct.pack(">HH", code, len(data)) + data


def with_opt(**how):
    return query(counts=(1, 0, 0, 1), more=opt(**how))


def record(rtype, rclass, data, owner=b"\3key\0"):
    return owner + struct.pack(">HHIH", rtype, rclass, 0, len(data)) + data


def messages():
    question = query()[12:]
    soa = record(SOA, IN, b"\0\0" + struct.pack(">IIIII", 1, 1, 1, 1, 1), wire("edge.test"))
    signed = b"\x0bhmac-sha256\0" + struct.pack(">HIHH", 0, 0x5F000000, 300, 32) + b"\0" * 32 + struct.pack(">HHH", 0x1234, 0, 0)
    tsig = record(TSIG, ANY, signed)

    yield "plain", query()
    yield "NOTIFY", query("edge.test", SOA, flags=4 << 11 | 0x400)
    yield "NOTIFY of an address", query(flags=4 << 11)
    yield "NOTIFY without a question", header(4 << 11, 0, 0, 0, 0)
    yield "UPDATE", header(5 << 11, 1, 0, 0, 0, more=wire("edge.test") + b"\0\6\0\1")
    yield "UPDATE without a question", header(5 << 11, 0, 0, 0, 0)
    for opcode in (1, 2, 3, *range(6, 16)):
        yield f"opcode {opcode}", query(flags=opcode << 11)
        yield f"opcode {opcode} with OPT", query(flags=opcode << 11, counts=(1, 0, 0, 1), more=opt())

    yield "no question", header(0, 0, 0, 0, 0)
    yield "no question, RD", header(0x100, 0, 0, 0, 0)
    yield "no question, OPT", header(0, 0, 0, 0, 1, more=opt())
    yield "no question, cookie", header(0, 0, 0, 0, 1, more=opt(options=option(COOKIE, b"12345678")))
    yield "no question said, one there", header(0, 0, 0, 0, 0, more=question)
    yield "two questions", header(0, 2, 0, 0, 0, more=question * 2)
    yield "two questions said, one there", header(0, 2, 0, 0, 0, more=question)
    yield "header only", header(0, 1, 0, 0, 0)
    yield "header cut", query()[:11]
    yield "question cut", query()[:-1]
    yield "name cut", query()[:20]
    for count in (1, 12):
        yield f"{count} bytes behind", query(more=b"\0" * count)
    yield "a byte behind the OPT", with_opt() + b"\0"
    yield "pointer to itself", query(b"\xc0\x0c")
    yield "pointer forward", query(b"\xc0\x20")
    yield "pointer into the header", query(b"\3www\xc0\x04")
    yield "pointer back", query(b"\3www\xc0\x0c")
    yield "label type 01", query(b"\x41" + b"a" * 10 + b"\0")
    yield "label type 10", query(b"\x81a\0")
    yield "a name that a DNAME makes too long", query(b"\x3f" + b"x" * 63 + wire("dlong.edge.test"))
    yield "name of 256 bytes", query(b"\1a" * 122 + b"\x05" + b"b" * 5 + b"\4test\0")
    for name, flag in (("QR", 0x8000), ("AA", 0x400), ("TC", 0x200), ("RD", 0x100), ("RA", 0x80), ("Z", 0x40), ("AD", 0x20),
                       ("CD", 0x10), ("RCODE 15", 0xF), ("all but QR", 0x7F0)):
        yield f"{name} set", query(flags=flag)
        yield f"{name} set, OPT", query(flags=flag, counts=(1, 0, 0, 1), more=opt())
    for qclass in (0, 2, CH, 4, NONE, ANY, 256, 65535):
        yield f"class {qclass}", query(qclass=qclass)
        yield f"class {qclass}, elsewhere", query("www.example", qclass=qclass)
    for name in ("version.bind", "version.server", "hostname.bind", "id.server", "authors.bind", "edge.test"):
        yield f"CH TXT {name}", query(name, TXT, CH)
    for qtype in (0, OPT, 127, 128, 248, 253, 254, 256, 65535):
        yield f"type {qtype}", query(qtype=qtype)
    yield "AXFR of the zone", query("edge.test", AXFR)
    yield "AXFR of no zone", query(qtype=AXFR)
    yield "AXFR of elsewhere", query("example", AXFR)
    yield "IXFR of no zone", query(qtype=IXFR)
    yield "IXFR with its SOA", query("edge.test", IXFR, counts=(1, 0, 1, 0), more=soa)
    yield "a record in the answer section", query(counts=(1, 1, 0, 0), more=soa)
    yield "a record in the authority section", query(counts=(1, 0, 1, 0), more=soa)
    yield "a record in the additional section", query(counts=(1, 0, 0, 1), more=soa)
    yield "an additional record that is not there", query(counts=(1, 0, 0, 1))

    for size in (0, 1, 511, 512, 4096, 65535):
        yield f"payload {size}", with_opt(size=size)
        for name, qtype in (("big.edge.test", TXT), ("many.edge.test", A)):
            yield f"payload {size}, {name}", query(name, qtype, counts=(1, 0, 0, 1), more=opt(size))
    yield "two OPTs", query(counts=(1, 0, 0, 2), more=opt() * 2)
    yield "OPT in the answer section", query(counts=(1, 1, 0, 0), more=opt())
    yield "OPT in the authority section", query(counts=(1, 0, 1, 0), more=opt())
    yield "OPT not of the root", with_opt(owner=b"\1a\0")
    yield "OPT of a pointer", with_opt(owner=b"\xc0\x0c")
    yield "OPT cut", with_opt()[:-3]
    yield "option longer than the OPT", with_opt(options=b"\0\x0a\0\xff12345678")
    yield "option's head cut", with_opt(options=b"\0\x0a\0")
    yield "OPT with RCODE bits", with_opt(high=255)
    yield "OPT with all flags", with_opt(flags=0xFFFF)
    for version in (1, 255):
        yield f"EDNS {version}", with_opt(version=version)
        yield f"EDNS {version}, DO and flags", with_opt(version=version, flags=0x8040)
        yield f"EDNS {version}, options", with_opt(version=version, options=option(NSID) + option(COOKIE, b"12345678"))
        yield f"EDNS {version}, a broken option", with_opt(version=version, options=b"\0\x0a\0\xff12")
        yield f"EDNS {version}, elsewhere", query("www.example", counts=(1, 0, 0, 1), more=opt(version=version))
    for length in (*range(0, 17), 24, 39, 40, 41, 100):
        yield f"cookie of {length}", with_opt(options=option(COOKIE, b"c" * length))
    yield "two cookies", with_opt(options=option(COOKIE, b"12345678") * 2)
    for code in (NSID, EXPIRE, KEEPALIVE, PADDING, 65001):
        yield f"option {code}", with_opt(options=option(code))
    for code, data in ((NSID, b"abc"), (KEEPALIVE, b"\0\1"), (KEEPALIVE, b"\0"), (PADDING, b"\0" * 468), (CHAIN, b"\0"),
                       (TAG, b"\0\1"), (ERROR, b"\0\0")):
        yield f"option {code} with {len(data)} bytes", with_opt(options=option(code, data))
    yield "a hundred options", with_opt(options=option(65001, b"x") * 100)
    for family, source, scope, address in ((1, 24, 0, b"\1\2\3"), (0, 0, 0, b""), (2, 56, 0, b"\x20\1\r\xb8\0\0\0"), (1, 24, 0, b"\1")):
        yield f"subnet {family} {source} {len(address)}", with_opt(options=option(SUBNET, struct.pack(">HBB", family, source, scope) + address))

    yield "TSIG of a key that is not known", query(counts=(1, 0, 0, 1), more=tsig)
    yield "TSIG behind an OPT", query(counts=(1, 0, 0, 2), more=opt() + tsig)
    yield "TSIG before an OPT", query(counts=(1, 0, 0, 2), more=tsig + opt())
    yield "two TSIGs", query(counts=(1, 0, 0, 2), more=tsig * 2)
    yield "TSIG without data", query(counts=(1, 0, 0, 1), more=record(TSIG, ANY, b""))
    yield "TSIG of class IN", query(counts=(1, 0, 0, 1), more=record(TSIG, IN, signed))


def receive(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("closed")
        data += part
    return data


def ask(address, message, tcp):
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as connection:
        connection.settimeout(TIMEOUT)
        try:
            connection.connect((address, 53))
            if not tcp:
                connection.send(message)
                return connection.recv(65535)
            connection.sendall(struct.pack(">H", len(message)) + message)
            return receive(connection, struct.unpack(">H", receive(connection, 2))[0])
        except OSError:
            return None


def kind(reply):
    """What kind of reply: RCODE, opcode, flags, OPT."""
    if reply is None or len(reply) < 12:
        return "none"
    _, flags = struct.unpack(">HH", reply[:4])
    # OPT stands last but for a TSIG; high RCODE bits and payload are in it.
    at = reply.rfind(b"\0\0\x29\x04\xd0")
    rcode = flags & 15 | (reply[at + 5] << 4 if at > 0 else 0)
    bits = [name for name, bit in (("aa", 0x400), ("tc", 0x200)) if flags & bit]
    return " ".join([f"rcode {rcode}", f"opcode {flags >> 11 & 15}", *bits, "opt" if at > 0 else "plain"])


def main():
    servers = [argument.split("=") for argument in sys.argv[1:]]
    count = against = alone = 0
    for title, message in messages():
        for tcp in (False, True):
            count += 1
            replies = [(name, kind(ask(address, message, tcp))) for name, address in servers]
            (_, ours), others = replies[0], [reply for _, reply in replies[1:]]
            if ours in others:
                continue
            reason = KNOWN.get(title)
            against, alone = against + (reason is None), alone + (reason is not None)
            print(f"  {'alone' if reason else 'against us'}: {title} [{'tcp' if tcp else 'udp'}] {reason or ''}")
            for name, reply in replies:
                print(f"      {name:10} {reply}")
    print(f"messages={count} against_us={against} alone={alone}")
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main())
