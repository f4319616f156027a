"""The shared tests of the three Python clients: the same records, the same group."""

import sys
import threading
import time

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
PARTITIONS = 4
PATIENCE_S = 60


def records(codec):
    """Yields (key, value, headers) with null, empty and binary keys and values, and headers that repeat a name."""
    for i in range(200):
        key = None if i % 10 == 9 else b"key-%d" % (i % 7)
        value = None if i % 50 == 48 else b"" if i % 50 == 47 else b"%s-%d-" % (codec.encode(), i) + b"\x00\xffx" * i
        headers = [("n", b"%d" % i), ("n", b"again"), ("binary", bytes([0, 255, i])), ("empty", b"")]
        yield key, value, headers if i % 2 == 0 else []


def check(codec, got):
    """Checks `got`, the (partition, offset, key, value, headers) of every record of the topic."""
    wanted = sorted(records(codec), key=repr)
    found = sorted(((key, value, list(headers or [])) for _, _, key, value, headers in got), key=repr)
    assert len(found) == len(wanted), f"{codec}: {len(found)} records instead of {len(wanted)}"
    for one, other in zip(found, wanted):
        assert one == other, f"{codec}: got {one}, wanted {other}"
    # Offsets are dense in every partition, and all records of a key are in one partition.
    offsets, homes = {}, {}
    for partition, offset, key, _, _ in got:
        offsets.setdefault(partition, []).append(offset)
        if key is not None:
            homes.setdefault(key, set()).add(partition)
    for partition, found in offsets.items():
        assert sorted(found) == list(range(len(found))), f"{codec}: offsets of partition {partition}: {sorted(found)}"
    assert all(len(partitions) == 1 for partitions in homes.values()), homes


NOT_NEGATIVE = 'json-compare{"path":"/n","op":">=","value":0}'
"""A filter for `stage.admit`: JSON whose `n` is not negative."""

MIXED = [b'{"n":1}', b"no json", b'{"n":2}', b'{"n":-1}']
"""Values of which the filter admits the first and the third."""


def check_refusals(errors):
    """Checks `errors`, the result of each record of one batch of MIXED as text; None for a success."""
    assert all(errors), f"a batch with a bad record was accepted: {errors}"
    assert "not JSON" in errors[1], errors[1]
    assert "json-compare" in errors[3], errors[3]


class Member(threading.Thread):
    """A member of a group in its own thread. `open()` returns an object with `poll()` (a list of values),
    `owned()` (a set of partitions) and `close()`."""

    def __init__(self, name, open):
        super().__init__(name=name, daemon=True)
        self.open, self.values, self.partitions, self.error = open, [], frozenset(), None
        self.leaving = threading.Event()
        self.start()

    def run(self):
        try:
            consumer = self.open()
            while not self.leaving.is_set():
                self.values += consumer.poll()
                self.partitions = frozenset(consumer.owned())
            consumer.close()
        except BaseException as error:
            self.error = error
            raise

    def leave(self):
        self.leaving.set()
        self.join(PATIENCE_S)
        assert not self.is_alive(), f"{self.name} does not end"


def wait_until(what, members, condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        for member in members:
            assert member.error is None, f"{member.name}: {member.error!r}"
        owned = {member.name: sorted(member.partitions) for member in members}
        assert time.monotonic() < end, f"timed out: {what}; owned: {owned}"
        time.sleep(0.02)


def group(open, produce):
    """Lets a second member join and leave again, after which the first takes over. Every record must come exactly
    once. `produce(values)` spreads the values over the partitions and waits for the acknowledgements."""
    everything = frozenset(range(PARTITIONS))
    first = Member("first", open)
    wait_until("one member owns all", [first], lambda: first.partitions == everything)
    produce([b"one-%d" % i for i in range(100)])
    wait_until("one member reads all", [first], lambda: len(first.values) == 100)

    second = Member("second", open)
    both = [first, second]
    wait_until(
        "two members share",
        both,
        lambda: len(first.partitions) == 2 and len(second.partitions) == 2
        and first.partitions | second.partitions == everything,
    )
    produce([b"two-%d" % i for i in range(100)])
    wait_until("two members read all", both, lambda: len(first.values) + len(second.values) == 200)
    assert second.values, "the second member read nothing"

    second.leave()
    wait_until("the first takes over", [first], lambda: first.partitions == everything)
    produce([b"three-%d" % i for i in range(100)])
    wait_until("the first reads the rest", [first], lambda: len(first.values) + len(second.values) == 300)
    first.leave()
    wanted = sorted(b"%s-%d" % (word, i) for word in (b"one", b"two", b"three") for i in range(100))
    assert sorted(first.values + second.values) == wanted, "a record came twice or never"

    # The commits of the first member remain: the next member starts at the end.
    produce([b"last"])
    third = Member("third", open)
    wait_until("a later member goes on", [third], lambda: bool(third.values))
    third.leave()
    assert third.values == [b"last"], third.values


# The values that a view shows, of a topic that has others too.
VIEW_CONFIGS = {"stage.filter": 'contains{"text":"keep "}'}


def shown(values):
    """Yields the values for the source of the view: each is sent once to be shown and once to be hidden."""
    for i, value in enumerate(values):
        yield i, b"keep " + value
        yield i, b"drop " + value


def view_group(open, create, produce):
    """Runs `group` on a view of four partitions, with `open(topic)`, `create(topic, configs)` and
    `produce(topic, [(partition, value)])`."""
    create("viewed", {})
    create("view", {"view.of": "viewed", **VIEW_CONFIGS})

    def open_member():
        member = open("view")
        poll = member.poll
        # Only shown records may arrive. Without the word that the filter searches for, each is the original value.
        member.poll = lambda: [value[len(b"keep "):] for value in poll() if value.startswith(b"keep ") or 1 / 0]
        return member

    group(open_member, lambda values: produce("viewed", [(i % PARTITIONS, value) for i, value in shown(values)]))


# The long gap of a view and the record that it shows, as in `views/mod.rs`.
MATCH = b"keep this one"
MATCH_OFFSET = 10_000_000
GAP_END = 10_160_001
MIN_BYTES = 65_536
MAX_WAIT_MS = 700


def check_gap(poll, position):
    """Finds the one record and reaches the end of the gap behind it. `poll(seconds)` returns (offset, value) pairs,
    and `position()` the next offset of the consumer."""
    found, end = [], time.monotonic() + 2 * PATIENCE_S
    while not found or position() < GAP_END:
        assert time.monotonic() < end, f"timed out: {found}, at {position()}"
        found += poll(1)
    # Nothing arrives twice, and nothing else arrives.
    found += poll(2)
    assert found == [(MATCH_OFFSET, MATCH)], found
    assert position() == GAP_END, position()


def main(commands):
    name, bootstrap = sys.argv[1], sys.argv[2]
    commands[name](bootstrap)
    print(f"{name}: ok")
