#!/usr/bin/env python3
"""Checks the evidence of a Domicile room without any code of Domicile.

    python3 verify.py room.evidence... --ca ca.pem [--json] [--each]

Several files are those that several origins have of one room, if its home changed;
with --each, every file is a room of its own. It needs Python 3.9 or later and nothing else. format.md beside it describes the
file; this program is that description in the other of two languages, and a test
of Domicile holds both verifiers to the same answer. It exits with 0 if all is
proved, 3 if something is missing, 1 if something is wrong, 2 if it was called
wrongly.

One thing it takes on trust: policies are signed as YAML, which Python cannot
read without more. It judges by the JSON form beside the signed text. That both
say the same is checked by `domicile evidence verify`.
"""

import base64
import datetime
import hashlib
import hmac
import json
import re
import sys
import urllib.parse

# --- ECDSA on P-256 (FIPS 186-5; the curve's numbers are of SP 800-186) ---------

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
     0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)


def double(p):
    """Twice a point in Jacobian coordinates; Z = 0 is the point at infinity."""
    x, y, z = p
    if not z or not y:
        return 0, 1, 0
    delta, gamma = z * z % P, y * y % P
    beta = x * gamma % P
    alpha = 3 * (x - delta) * (x + delta) % P
    x3 = (alpha * alpha - 8 * beta) % P
    return x3, (alpha * (4 * beta - x3) - 8 * gamma * gamma) % P, ((y + z) ** 2 - gamma - delta) % P


def add(p, q):
    """The sum of two points in Jacobian coordinates."""
    if not p[2]:
        return q
    if not q[2]:
        return p
    z1, z2 = p[2] * p[2] % P, q[2] * q[2] % P
    u1, u2 = p[0] * z2 % P, q[0] * z1 % P
    s1, s2 = p[1] * z2 * q[2] % P, q[1] * z1 * p[2] % P
    if u1 == u2:
        return double(p) if s1 == s2 else (0, 1, 0)
    h, r = u2 - u1, s2 - s1
    h2 = h * h % P
    h3, v = h * h2 % P, u1 * h2 % P
    x = (r * r - h3 - 2 * v) % P
    return x, (r * (v - x) - s1 * h3) % P, h * p[2] * q[2] % P


def ecdsa(key, digest, r, s):
    """Whether (r, s) is a signature of the digest by the key, a point (x, y)."""
    if not (0 < r < N and 0 < s < N):
        return False
    w, e = pow(s, -1, N), int.from_bytes(digest, "big")
    a, b = e * w % N, r * w % N
    g, q = (*G, 1), (*key, 1)
    table = {"01": q, "10": g, "11": add(g, q)}
    p = (0, 1, 0)
    for i in range(255, -1, -1):
        p = double(p)
        bits = f"{a >> i & 1}{b >> i & 1}"
        if bits != "00":
            p = add(p, table[bits])
    if not p[2]:
        return False
    return p[0] * pow(p[2], -2, P) % P % N == r


# --- Certificates (X.509, RFC 5280), as far as they are needed ------------------


class Bad(Exception):
    """What was read is not what it has to be; the text says how."""


def der(b, at=0):
    """One element of DER at an offset: its tag, its content, its whole, and what follows."""
    if len(b) < at + 2:
        raise Bad("a certificate is cut")
    tag, size, start = b[at], b[at + 1], at + 2
    if size > 0x80:
        n = size & 0x7F
        size, start = int.from_bytes(b[start:start + n], "big"), start + n
        if n > 4 or size < 0x80 or size < 1 << 8 * (n - 1):
            raise Bad("a length is not in DER")
    elif size == 0x80:
        raise Bad("a length is not in DER")
    if len(b) < start + size:
        raise Bad("a certificate is cut")
    return tag, b[start:start + size], b[at:start + size], start + size


def parts(b):
    """All elements in b, as (tag, content, whole)."""
    out, at = [], 0
    while at < len(b):
        tag, content, whole, at = der(b, at)
        out.append((tag, content, whole))
    return out


ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
P256_KEY = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
BASIC_CONSTRAINTS, KEY_USAGE, SUBJECT_ALT, EXTENDED_USAGE = "551d13", "551d0f", "551d11", "551d25"
SERVER_AUTH, CLIENT_AUTH = bytes.fromhex("2b06010505070301"), bytes.fromhex("2b06010505070302")
KNOWN = {BASIC_CONSTRAINTS, KEY_USAGE, SUBJECT_ALT, EXTENDED_USAGE}


def moment(tag, content):
    """A time of a certificate in ms since 1970."""
    text = content.decode("ascii")
    if tag == 0x17:
        text = ("19" if text[:2] >= "50" else "20") + text
    t = datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    return int(t.timestamp()) * 1000


class Certificate:
    """A certificate with a key on P-256, signed with ECDSA and SHA-256."""

    def __init__(self, raw):
        try:
            self.read(raw)
        except (IndexError, ValueError, UnicodeDecodeError) as e:
            raise Bad(f"a certificate cannot be read: {e}") from e

    def read(self, raw):
        self.raw, self.fingerprint = raw, hashlib.sha256(raw).hexdigest()
        tag, content, whole, end = der(raw)
        if tag != 0x30 or end != len(raw):
            raise Bad("not a certificate")
        tbs, algorithm, signature = parts(content)
        self.signed, self.algorithm = tbs[2], algorithm[1]
        self.r, self.s = (int.from_bytes(n[1], "big") for n in parts(der(signature[1][1:])[1]))
        fields = parts(tbs[1])
        if fields[0][0] != 0xA0 or fields[0][1] != b"\x02\x01\x02":
            raise Bad("not a certificate of version 3")
        self.serial = format(int.from_bytes(fields[1][1], "big"), "x")
        self.issuer, self.subject = fields[3][2], fields[5][2]
        self.begin, self.end = (moment(t, c) for t, c, _ in parts(fields[4][1]))
        if fields[2][1] != self.algorithm or self.algorithm != ECDSA_SHA256:
            raise Bad("not signed with ECDSA and SHA-256")
        kind, bits = parts(fields[6][1])
        if kind[2] != P256_KEY or len(bits[1]) != 66 or bits[1][:2] != b"\0\x04":
            raise Bad("a key that is not on P-256")
        self.key = int.from_bytes(bits[1][2:34], "big"), int.from_bytes(bits[1][34:], "big")
        x, y = self.key
        if max(x, y) >= P or (y * y - x * x * x + 3 * x - B) % P:
            raise Bad("a key that is not on P-256")
        self.extensions(fields[7:])

    def extensions(self, fields):
        self.authority, self.uses, self.uris = False, [], []
        for tag, content, _ in fields:
            if tag != 0xA3:
                continue
            for _, extension, _ in parts(parts(content)[0][1]):
                name, *critical, value = parts(extension)
                name, critical = name[1].hex(), bool(critical) and critical[0][1] != b"\0"
                if name not in KNOWN and critical:
                    raise Bad("an extension that nobody knows")
                inner = parts(parts(value[1])[0][1]) if name in KNOWN and name != KEY_USAGE else []
                if name == BASIC_CONSTRAINTS:
                    self.authority = bool(inner) and inner[0][:2] == (1, b"\xff")
                elif name == EXTENDED_USAGE:
                    self.uses = [c for _, c, _ in inner]
                elif name == SUBJECT_ALT:
                    self.uris = [c.decode("ascii") for t, c, _ in inner if t == 0x86]

    def issued(self, other):
        """Whether this authority signed another certificate."""
        return self.authority and other.issuer == self.subject and ecdsa(self.key, hashlib.sha256(other.signed).digest(), other.r, other.s)


FACTS = ["country", "operator", "operator_country", "parent", "parent_country", "roles"]


def node_of(cert):
    """What a node's certificate states, from its one URI domicile://node/NAME?..."""
    if cert.authority or not {SERVER_AUTH, CLIENT_AUTH} <= set(cert.uses) or len(cert.uris) != 1:
        raise Bad("not the certificate of a node")
    u = urllib.parse.urlsplit(cert.uris[0])
    pairs = urllib.parse.parse_qsl(u.query, keep_blank_values=True, strict_parsing=True)
    if u.scheme != "domicile" or u.netloc != "node" or sorted(k for k, _ in pairs) != sorted(FACTS):
        raise Bad("a node's URI of another form")
    node = dict(pairs)
    node["name"], node["roles"] = u.path[1:], node["roles"].split(",")
    if not NAME.fullmatch(node["name"]) or not all(COUNTRY.fullmatch(node[k]) for k in FACTS if k.endswith("country")):
        raise Bad("a node's URI of another form")
    if not set(node["roles"]) <= {"origin", "edge"} or not node["operator"] or not node["parent"]:
        raise Bad("a node's URI of another form")
    return node


# --- Signed statements ------------------------------------------------------------

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
COUNTRY = re.compile(r"[A-Z]{2}")
HEX64, HEX32 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{32}")
WORD = re.compile(r'[ !#-\[\]-~]{0,255}')
EXACT = 2 ** 53 - 1

TEXT, WHOLE, TRUTH, LIST, ANY = str, int, bool, list, object
RECEIPT = {"version": WHOLE, "room": TEXT, "node": TEXT, "certificate": TEXT, "run": WHOLE, "seq": WHOLE, "previous": TEXT, "side": TEXT,
           "peer": TEXT, "peer_certificate": TEXT, "class": TEXT, "qa": TRUTH, "policy": TEXT, "tenant": TEXT, "rule": TEXT, "epoch": WHOLE,
           "packets": WHOLE, "bytes": WHOLE, "lost": WHOLE, "lost_bytes": WHOLE, "first": WHOLE, "last": WHOLE, "final": TRUTH}
FLAGS = {"qa"}
HEAD = {"version": WHOLE, "origin": TEXT, "certificate": TEXT, "log": TEXT, "size": WHOLE, "root": TEXT, "time": WHOLE}
VOUCHER = {"version": WHOLE, "witness": TEXT, "certificate": TEXT, "origin": TEXT, "log": TEXT, "size": WHOLE, "root": TEXT, "logs": WHOLE, "time": WHOLE}
MANIFEST = {"version": WHOLE, "origin": TEXT, "certificate": TEXT, "lines": WHOLE, "digest": TEXT, "exported": WHOLE}
ROOM = {"sid": TEXT, "key": TEXT, "pseudonym": TEXT}
POLICY = {"epoch": WHOLE, "text": TEXT, "signature": TEXT, "form": ANY}
COUNTERSIGNATURE = {"signed": TEXT, "proof": LIST}

CLASSES = {"media", "signalling", "chat", "chat_offline", "metadata", "recording", "transcript", "export", "telemetry"}
LIVE = {"media", "signalling", "chat"}
CONTEXT = {"receipt": b"domicile receipt v1\0", "head": b"domicile log head v1\0", "voucher": b"domicile countersignature v1\0",
           "end": b"domicile evidence file v1\0", "policy": b"domicile policy v1\0", "pseudonym": b"domicile room pseudonym v1\0"}


def compact(value):
    """JSON in the one form that statements have."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").encode()


def obj(body, fields=None):
    """Reads JSON that has the one form it may have, and exactly these fields; a flag stands there only if it is true."""
    try:
        value = json.loads(body)
        same = compact(value) == body
    except (ValueError, RecursionError, UnicodeError) as e:
        raise Bad(f"not JSON: {e}") from e
    if fields is not None and isinstance(value, dict):
        fields = {name: kind for name, kind in fields.items() if name not in FLAGS or value.get(name) is True}
    if not same or fields is not None and (not isinstance(value, dict) or list(value) != list(fields)):
        raise Bad("it is not in the one form that it may have")
    for name, kind in (fields or {}).items():
        if kind is not ANY and type(value[name]) is not kind or kind is WHOLE and not 0 <= value[name] <= EXACT:
            raise Bad(f"{name} cannot be {value[name]!r}")
    return value


def statement(line, fields):
    """Cuts a signed line into its object, its bytes and its signature."""
    if len(line) > 4096 or len(line) < 131 or line[-129:-128] != b" " or not re.fullmatch(rb"[0-9a-f]{128}", line[-128:]):
        raise Bad("no signature of 128 digits at its end")
    return obj(line[:-129], fields)


def signed_by(line, context, cert):
    """Whether a certificate's key made the signature at the line's end."""
    r, s = int(line[-128:-64], 16), int(line[-64:], 16)
    return s <= N // 2 and ecdsa(cert.key, hashlib.sha256(CONTEXT[context] + line[:-129]).digest(), r, s)


def receipt(line):
    r = statement(line, RECEIPT)
    r["qa"] = "qa" in r
    own = r["side"] in ("stored", "recorded", "erased")
    ok = (r["version"] == 1 and HEX32.fullmatch(r["room"]) and NAME.fullmatch(r["node"]) and NAME.fullmatch(r["peer"])
          and r["side"] in ("sent", "received", "stored", "recorded", "erased", "refused") and r["class"] in CLASSES
          and (own == (r["peer"] == r["node"]) or r["side"] == "refused") and HEX64.fullmatch(r["certificate"])
          and (not own or r["peer_certificate"] == r["certificate"])
          and (HEX64.fullmatch(r["peer_certificate"]) or r["peer_certificate"] == "" and r["side"] == "refused")
          and (not r["qa"] or r["class"] == "chat" and r["side"] == "stored")
          and r["policy"] and r["rule"] and all(WORD.fullmatch(r[k]) for k in ("policy", "tenant", "rule"))
          and r["seq"] > 0 and (r["seq"] == 1) == (r["previous"] == "") and (r["previous"] == "" or HEX64.fullmatch(r["previous"]))
          and r["epoch"] > 0 and 0 < r["run"] and r["run"] - 60_000 <= r["first"] <= r["last"]
          and (r["side"] != "refused" or r["bytes"] == r["lost"] == r["lost_bytes"] == 0))
    if not ok:
        raise Bad(f"receipt {r['seq']} of node {r['node']!r} says what cannot be")
    return r


def head(line, fields=HEAD):
    h = statement(line, fields)
    names = [h["origin"], h.get("witness", h["origin"])]
    if not (h["version"] == 1 and all(NAME.fullmatch(n) for n in names) and HEX64.fullmatch(h["certificate"]) and HEX64.fullmatch(h["root"])
            and HEX32.fullmatch(h["log"]) and h["size"] > 0 and h["time"] > 0 and h.get("logs", 1) > 0):
        raise Bad("a head says what cannot be")
    return h


# --- The log (a Merkle tree, RFC 6962 section 2.1) --------------------------------


def leaf(line):
    return hashlib.sha256(b"\0" + line).digest()


def branch(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def split(n):
    """The greatest power of two below n."""
    return 1 << (n - 1).bit_length() - 1


def hashes(texts):
    if not all(isinstance(t, str) and HEX64.fullmatch(t) for t in texts):
        raise Bad("a proof holds what is no hash")
    return [bytes.fromhex(t) for t in texts]


def root_of(size, leaves, proof):
    """The log's hash from some leaves, as (number, hash) in order, and the hashes of every greatest range without one."""
    if not leaves or leaves[-1][0] >= size or any(a[0] >= b[0] for a, b in zip(leaves, leaves[1:])):
        raise Bad("receipts that are not in order")
    rest = iter(proof)

    def walk(lo, hi, at, to):
        if at == to:
            return next(rest)
        if hi - lo == 1:
            return leaves[at][1]
        mid = lo + split(hi - lo)
        cut = at
        while cut < to and leaves[cut][0] < mid:
            cut += 1
        left = walk(lo, mid, at, cut)
        return branch(left, walk(mid, hi, cut, to))

    try:
        root = walk(0, size, 0, len(leaves))
    except (StopIteration, RuntimeError):
        raise Bad("the proof is too short") from None
    if next(rest, None) is not None:
        raise Bad("the proof is too long")
    return root


def continues(proof, size, root, old_size, old_root):
    """Whether a log begins with what it was (RFC 6962 section 2.1.2)."""
    if not 0 < old_size <= size:
        return False
    if old_size == size:
        return not proof and root == old_root
    rest = list(proof)

    def walk(lo, hi):
        """The hashes of lo..min(old_size, hi) and lo..hi."""
        if old_size == hi:
            if lo == 0:
                return old_root, old_root
            h = rest.pop(0)
            return h, h
        mid = lo + split(hi - lo)
        if old_size <= mid:
            old, new = walk(lo, mid)
            return old, branch(new, rest.pop(0))
        old, new = walk(mid, hi)
        left = rest.pop(0)
        return branch(left, old), branch(left, new)

    try:
        old, new = walk(0, size)
    except IndexError:
        return False  # too short
    return not rest and old == old_root and new == root


# --- The gate ---------------------------------------------------------------------


def when(text):
    """A time of the JSON form in ms since 1970; None is none."""
    if text.startswith("0001-01-01"):
        return None
    t = datetime.datetime.fromisoformat(re.sub(r"\.\d+", "", text).replace("Z", "+00:00"))
    return int(t.timestamp() * 1000)


def judge(form, r, cert, node, store, outside, at):
    """What the gate says: whether the node may have the receipt's class then, and by which rule."""
    b, eea = form["bundle"], form["eea"]
    expires = when(b["Expires"])
    if expires is not None and at >= expires:
        return False, "bundle-stale"
    tenants = {t["Name"]: t for t in reversed(b["Tenants"] or [])}
    if r["tenant"]:
        t = tenants.get(r["tenant"])
        if t is None or r["policy"] not in [t["Policy"]] + (t["Policies"] or []):
            return False, "tenant"
    p = b["Policies"].get(r["policy"])
    if p is None:
        return False, "no-policy"
    if not cert.begin <= at < cert.end:
        return False, "certificate"
    if cert.serial in [s.lower() for s in b["Revoked"] or []]:
        return False, "revoked"
    nodes = {n["Name"]: n for n in reversed(b["Nodes"] or [])}
    entry = nodes.get(node["name"], {})
    if nodes and (entry.get("Country") != node["country"] or entry["Roles"] and not set(node["roles"]) <= set(entry["Roles"])):
        return False, "register"
    if entry.get("Tenants") and r["tenant"] not in entry["Tenants"]:
        return False, "tenant"
    kept = keeps(p, r, node, store)
    if kept:
        return False, kept
    allow, rule = reaches(p, r, node, store, outside)
    if allow and p["TransferRequired"] and node["country"] not in eea and not transfer(p, node["country"], at):
        return False, "transfer-basis"
    return allow, rule


def keeps(p, r, node, store):
    if r["class"] == "recording" and not p["Recording"]["Allowed"]:
        return "not-stored"
    if not store:
        return ""
    if r["class"] in ("media", "signalling") or r["class"] == "chat" and not p["QALog" if r["qa"] else "ChatLog"]:
        return "not-stored"
    return "" if "origin" in node["roles"] else "store-role"


def reaches(p, r, node, store, outside):
    zone = p["Zones"][r["class"]]
    within = zone["Anywhere"] or node["country"] in (zone["Countries"] or [])
    if not within and not (p["EdgeOutside"] and not store and r["class"] in LIVE and "edge" in node["roles"]):
        return False, "zone"
    operator = (not zone["Operators"] or node["operator"] in zone["Operators"],
                not zone["OperatorCountries"] or node["operator_country"] in zone["OperatorCountries"],
                not zone["ParentCountries"] or node["parent_country"] in zone["ParentCountries"],
                node["parent_country"] not in (zone["ExcludedParentCountries"] or []))
    if not all(operator):
        return False, "zone"
    if within:
        return True, "zone"
    return (True, "edge-outside") if outside else (False, "edge-empty")


def transfer(p, country, at):
    for t in p["Transfers"] or []:
        until = when(t["Until"])
        if country in (t["Countries"] or []) and at >= (when(t["From"]) or 0) and (until is None or at < until):
            return True
    return False


# --- The file ---------------------------------------------------------------------

ORDER = ["room", "authority", "certificate", "policy", "head", "countersignature", "proof", "receipt", "end"]
ONCE = {"room", "proof", "end"}


class File:
    """A file's lines, of the form they must have."""

    def __init__(self, b):
        self.certificates, self.policies, self.logs = [], [], []
        if not b.startswith(b"domicile-evidence 1\n") or not b.endswith(b"\n"):
            raise Bad("it does not begin or end as it must")
        lines, rank = b[:-1].split(b"\n")[1:], -1
        for number, line in enumerate(lines, 2):
            kind, _, value = line.partition(b" ")
            kind = kind.decode("latin-1")
            n = ORDER.index(kind) if kind in ORDER else -1
            again = n == rank and kind not in ONCE or kind == "head" and rank == 7
            if n < 0 or n <= rank and not again or rank < 0 and n or kind == "end" and rank < 7 or kind == "receipt" and rank < 6 or n > 4 and rank < 4:
                raise Bad(f"line {number} cannot stand here")
            rank = n
            self.line(kind, value)
        if rank != 8 or self.manifest["lines"] != len(lines):
            raise Bad("its end is not that of so many lines")
        self.digest = hashlib.sha256(b[:-1 - len(lines[-1])]).hexdigest()

    def line(self, kind, value):
        if kind == "room":
            self.room = obj(value, ROOM)
        elif kind in ("authority", "certificate"):
            try:
                raw = base64.b64decode(value, validate=True)
            except ValueError as e:
                raise Bad(str(e)) from e
            if base64.b64encode(raw) != value:
                raise Bad("not in base64")
            if kind == "certificate":
                self.certificates.append(raw)
        elif kind == "policy":
            self.policies.append(obj(value, POLICY))
        elif kind == "head":
            self.logs.append({"head": value, "vouchers": [], "receipts": []})
        elif kind == "countersignature":
            self.logs[-1]["vouchers"].append(obj(value, COUNTERSIGNATURE))
        elif kind == "proof":
            self.logs[-1]["proof"] = obj(value)
            if not isinstance(self.logs[-1]["proof"], list):
                raise Bad("a proof is a list")
        elif kind == "receipt":
            number, _, line = value.partition(b" ")
            if not re.fullmatch(rb"0|[1-9][0-9]{0,17}", number):
                raise Bad("a receipt's number")
            self.logs[-1]["receipts"].append((int(number), line))
        else:
            self.end, self.manifest = value, statement(value, MANIFEST)
            if self.manifest["version"] != 1:
                raise Bad("another version")


# Severity of each kind of finding: 1 missing, 2 not what it says it is, 3 not allowed.
SEVERITY = {"not-allowed": 3, "other-rule": 3, "two-policies": 3, "old-policy": 3, "no-receipts": 1, "not-final": 1,
            "counterpart-missing": 1, "counts-differ": 1, "not-witnessed": 1, "another-log": 1}


class Verifier:
    def __init__(self, roots):
        self.roots, self.findings, self.certs, self.forms, self.receipts = roots, [], {}, {}, []
        self.texts, self.writes, self.open = {}, set(), set()
        self.about, self.readable = None, True

    def find(self, code, *what):
        if (code, what) not in self.findings:
            self.findings.append((code, what))

    def file(self, b):
        """Checks all that one file has to show by itself."""
        try:
            f = File(b)
        except Bad as e:
            self.readable = False
            return self.find("file-form", str(e))
        if self.about not in (None, f.room):
            self.find("wrong-room")
        self.about = self.about or f.room
        self.room(f.room)
        for raw in f.certificates:
            self.certificate(raw)
        self.manifest(f)
        here = set()
        for p in f.policies:
            self.policy(p, here)
        for log in f.logs:
            self.log(log)

    def together(self):
        """Checks what receipts say of each other; one that stands in two logs counts once."""
        if not self.readable:
            return None
        self.receipts = list({r["line"]: r for r in self.receipts}.values())
        if not self.receipts:
            return self.find("no-receipts")
        first = self.receipts[0]
        if any((r["policy"], r["tenant"]) != (first["policy"], first["tenant"]) for r in self.receipts):
            self.find("two-policies")
        self.chains(self.about["pseudonym"])
        for r in self.receipts:
            self.judge(r)
        self.rounds()
        self.counterparts()

    def room(self, room):
        ok = HEX64.fullmatch(room["key"]) and room["sid"]
        if not ok or hmac.new(bytes.fromhex(room["key"]), CONTEXT["pseudonym"] + room["sid"].encode(), "sha256").hexdigest()[:32] != room["pseudonym"]:
            self.find("wrong-room")

    def certificate(self, raw):
        try:
            cert = Certificate(raw)
            cert.node = node_of(cert)
            if not any(root.issued(cert) and cert.begin < root.end and root.begin < cert.end for root in self.roots):
                raise Bad("no authority that you trust issued it")
            self.certs[cert.fingerprint] = cert
        except (Bad, ValueError) as e:
            self.find("certificate", str(e))

    def manifest(self, f):
        m = f.manifest
        if m["digest"] != f.digest:
            self.find("file-changed")
        cert = self.certs.get(m["certificate"])
        if cert is None:
            self.find("certificate-missing", m["origin"])
        elif cert.node["name"] != m["origin"]:
            self.find("wrong-name", m["origin"])
        elif not signed_by(f.end, "end", cert):
            self.find("file-seal", m["origin"])

    def policy(self, p, here):
        text = p["text"].encode()
        found = re.match(r"\s*-----BEGIN DOMICILE SIGNATURE-----\s(.*?)-----END DOMICILE SIGNATURE-----", p["signature"], re.S)
        try:
            if not found:
                raise Bad("no signature")
            r, s = (int.from_bytes(n[1], "big") for n in parts(der(base64.b64decode(found[1]))[1]))
            digest = hashlib.sha256(CONTEXT["policy"] + text).digest()
            if not any(ecdsa(root.key, digest, r, s) for root in self.roots if root.authority):
                raise Bad("not signed by an authority that you trust")
            if p["form"]["bundle"]["Epoch"] != p["epoch"] or p["epoch"] in here or self.texts.get(p["epoch"], text) != text:
                raise Bad("of another epoch, or there twice")
            here.add(p["epoch"])
            self.texts[p["epoch"]] = text
            self.forms[p["epoch"]] = p["form"]
        except (Bad, ValueError, KeyError, TypeError) as e:
            self.find("policy", p["epoch"], str(e))

    def signer(self, name, fingerprint, at):
        cert = self.certs.get(fingerprint)
        return cert if cert and cert.node["name"] == name and cert.begin <= at < cert.end else None

    def log(self, log):
        try:
            h = head(log["head"])
            cert = self.signer(h["origin"], h["certificate"], h["time"])
            if cert is None or not signed_by(log["head"], "head", cert):
                raise Bad("not signed by its origin")
        except Bad as e:
            return self.find("head", str(e))
        root = bytes.fromhex(h["root"])
        try:
            if root_of(h["size"], [(n, leaf(line)) for n, line in log["receipts"]], hashes(log["proof"])) != root:
                raise Bad("other receipts")
        except Bad as e:
            self.find("not-in-log", str(e))
        others = False
        for _, line in log["receipts"]:
            try:
                r = receipt(line)
            except Bad as e:
                self.find("receipt-form", str(e))
                continue
            r["line"], others = line, others or r["node"] != h["origin"]
            self.receipts.append(r)
        newest = log["receipts"][-1][0] if log["receipts"] else -1
        covered = [self.voucher(v, h, root) > newest for v in log["vouchers"]]
        if others and not any(covered):
            self.find("not-witnessed", h["origin"])

    def voucher(self, v, h, root):
        """The size of the log that another node countersigned, 0 if it is not good."""
        line = v["signed"].encode()
        try:
            c = head(line, VOUCHER)
            cert = self.signer(c["witness"], c["certificate"], c["time"])
            if cert is None or not signed_by(line, "voucher", cert) or c["origin"] != h["origin"]:
                raise Bad("not its own")
        except Bad as e:
            self.find("countersignature", str(e))
            return 0
        try:
            proof = hashes(v["proof"])
        except Bad:
            proof = [b""]
        if c["log"] != h["log"] or not continues(proof, h["size"], root, c["size"], bytes.fromhex(c["root"])):
            self.find("log-forked", h["origin"], c["witness"], c["size"])
            return 0
        if c["logs"] > 1:
            self.find("another-log", c["witness"])
        return c["size"] if c["witness"] != h["origin"] else 0

    def chains(self, pseudonym):
        stays = {}
        for r in self.receipts:
            if r["room"] != pseudonym:
                self.find("receipt-other-room", r["node"], r["seq"])
            else:
                stays.setdefault((r["node"], r["run"]), []).append(r)
        for key in sorted(stays):
            self.chain(sorted(stays[key], key=lambda r: r["seq"]))

    def chain(self, chain):
        want, before = 1, None
        for r in chain:
            linked = before is None or r["previous"] == hashlib.sha256(before["line"]).hexdigest()
            where = (r["node"], r["run"], r["seq"])
            if before and r["seq"] == before["seq"]:
                if r["line"] == before["line"]:
                    continue
                self.find("receipt-twice", *where)
            elif r["seq"] != want:
                self.find("receipt-missing", r["node"], r["run"], want)
            elif not linked:
                self.find("receipt-link", *where)
            if before and before["final"]:
                self.find("receipt-after-final", *where)
            if before and (r["seq"] != before["seq"] + 1 or not linked or r["certificate"] != before["certificate"]):
                self.signed(before)
            if not before or r["certificate"] != before["certificate"]:
                cert = self.certs.get(r["certificate"])
                if cert is None:
                    self.find("certificate-missing", r["node"])
                elif cert.node["name"] != r["node"]:
                    self.find("wrong-name", r["node"])
            want, before = r["seq"] + 1, r
        self.signed(before)
        self.writes.add(before["node"])
        if not before["final"]:
            self.open.add(before["node"])
            self.find("not-final", before["node"], before["run"])

    def signed(self, r):
        cert = self.certs.get(r["certificate"])
        if cert and not signed_by(r["line"], "receipt", cert):
            self.find("receipt-signature", r["node"], r["run"], r["seq"])

    def judge(self, r):
        form = self.forms.get(r["epoch"])
        if form is None:
            return self.find("policy-missing", r["epoch"], r["node"])
        if r["side"] in ("refused", "erased"):
            return
        store = r["side"] in ("stored", "recorded")
        self.ask(form, r, r["peer"], r["peer_certificate"], store, r["rule"] == "edge-outside", True)
        if r["side"] == "received":
            self.ask(form, r, r["node"], r["certificate"], False, True, False)

    def ask(self, form, r, name, fingerprint, store, outside, stated):
        cert = self.certs.get(fingerprint)
        if cert is None:
            return self.find("certificate-missing", name)
        if cert.node["name"] != name:
            self.find("wrong-name", name)
        try:
            answers = [judge(form, r, cert, cert.node, store, outside, at) for at in (r["first"], r["last"])]
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            return self.find("policy", r["epoch"], str(e))
        refused = [a for a in answers if not a[0]]
        if refused:
            self.find("not-allowed", name, r["side"], r["class"], refused[0][1])
        elif stated and answers[0][1] != r["rule"]:
            self.find("other-rule", r["node"], r["class"], r["peer"])

    def rounds(self):
        begun = {}
        for r in self.receipts:
            begun[r["epoch"]] = min(begun.get(r["epoch"], r["first"]), r["first"])
        for r in self.receipts:
            if any(epoch > r["epoch"] and r["last"] > t + 60_000 for epoch, t in begun.items()):
                self.find("old-policy", r["node"])

    def counterparts(self):
        sent, received, arrived = {}, {}, {}
        for r in self.receipts:
            if r["side"] == "sent":
                ends, key = sent, (r["node"], r["peer"], r["class"])
            elif r["side"] == "received":
                ends, key = received, (r["peer"], r["node"], r["class"])
            else:
                continue
            sums = ends.setdefault(key, [0, 0])
            sums[0] += r["packets"] + r["lost"] * (ends is received)
            sums[1] += r["bytes"] + r["lost_bytes"] * (ends is received)
            if ends is received:
                arrived[key] = arrived.get(key, 0) + r["packets"]
        for key in sorted(set(sent) | set(received)):
            a, b = sent.get(key), received.get(key)
            running = key[0] in self.open or key[1] in self.open
            if b is None:
                if a[0] > 3 and not (running and key[1] in self.writes):
                    self.find("counterpart-missing", *key)
            elif a is None:
                if arrived[key] > 0 and not (running and key[0] in self.writes):
                    self.find("counterpart-missing", *key)
            elif not running and (abs(a[0] - b[0]) > a[0] // 1000 + 3 or abs(a[1] - b[1]) > a[1] // 1000 + 4500):
                self.find("counts-differ", *key)


def authorities(path):
    with open(path, encoding="ascii") as f:
        text = f.read()
    return [Certificate(base64.b64decode(b)) for b in re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", text, re.S)]


def main(arguments):
    options = {a for a in arguments if a in ("--json", "--each")}
    arguments = [a for a in arguments if a not in options]
    if len(arguments) < 3 or arguments[-2] != "--ca":
        print(__doc__, file=sys.stderr)
        return 2
    paths, roots, code = arguments[:-2], authorities(arguments[-1]), 0
    for room in [[p] for p in paths] if "--each" in options else [paths]:
        v = Verifier(roots)
        for path in room:
            with open(path, "rb") as f:
                v.file(f.read())
        v.together()
        worst = max((SEVERITY.get(c, 2) for c, _ in v.findings), default=0)
        code = max(code, {0: 0, 1: 3}.get(worst, 1), key=[0, 3, 1].index)
        if "--json" in options:
            print(json.dumps({"severity": worst, "codes": sorted({c for c, _ in v.findings}), "receipts": len(v.receipts)}))
            continue
        print(f"{', '.join(room)}: {len(v.receipts)} receipts")
        for c, what in v.findings:
            print(f"  {c}: {', '.join(map(str, what))}")
        print(["proved: nothing is missing, nothing is wrong", "not proved: something is missing",
               "wrong: this is not what the nodes wrote", "wrong: the policy did not allow this"][worst])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
