"""The loader: what goes in and out, and all that a plug-in can do wrong. `MILLSTREAM_PLUGINS` names the folder of the
plug-ins that the tests of Millstream write."""

import logging
import os
import unittest
from pathlib import Path

from kafka.partitioner.default import murmur2

from millstream_stage import (
    Batch,
    BatchError,
    ConfigError,
    ContractError,
    DeadlineError,
    Filter,
    Partitioner,
    RowErrors,
    Trap,
)

PLUGINS = Path(os.environ["MILLSTREAM_PLUGINS"])


def plugin(name):
    return PLUGINS / f"{name}.core.wasm"


def keys(count):
    """Returns keys of 0 to 40 bytes, of all values."""
    return [bytes((row * 31 + at * 7) * (row + 1) >> 3 & 255 for at in range(row % 41)) for row in range(count)]


class Partitions(unittest.TestCase):
    def setUp(self):
        self.murmur2 = Partitioner(plugin("murmur2"))

    def test_ten_thousand_keys_agree_with_kafka_python(self):
        rows = keys(10_000)
        chosen = self.murmur2.partition("t", 12, Batch(keys=rows))
        self.assertEqual(list(chosen), [(murmur2(key) & 0x7FFFFFFF) % 12 for key in rows])
        self.assertEqual(len(set(chosen)), 12)

    def test_a_key_of_a_mebibyte(self):
        key = bytes(range(256)) * 4096
        expected = (murmur2(key) & 0x7FFFFFFF) % 12
        self.assertEqual(self.murmur2.partition("t", 12, Batch(keys=[key])), (expected,))

    def test_null_and_empty_keys(self):
        chosen = self.murmur2.partition("t", 12, Batch(keys=[None, b"", None, b"k"]))
        self.assertEqual(chosen[1], (murmur2(b"") & 0x7FFFFFFF) % 12)
        self.assertEqual(chosen[3], (murmur2(b"k") & 0x7FFFFFFF) % 12)
        self.assertTrue(all(0 <= one < 12 for one in chosen))

    def test_records_without_keys_avoid_partitions_without_a_leader(self):
        for _ in range(20):
            self.assertEqual(self.murmur2.partition("t", 3, Batch(keys=[None]), unavailable=[0, 2]), (1,))

    def test_no_rows(self):
        self.assertEqual(self.murmur2.partition("t", 12, Batch(keys=[])), ())

    def test_a_partition_that_does_not_exist(self):
        with self.assertRaisesRegex(ContractError, "99 of 12"):
            Partitioner(plugin("no-such-partition")).partition("t", 12, Batch(keys=[b"k"]))


class Filters(unittest.TestCase):
    def test_ten_thousand_rows(self):
        rows = [b"an error" if row % 10 == 3 else None if row % 10 == 4 else b"fine" for row in range(10_000)]
        contains = Filter(plugin("contains"), {"text": "error"})
        self.assertEqual(contains.keep("t", Batch(values=rows)), [row % 10 == 3 for row in range(10_000)])
        self.assertEqual(contains.columns, ["values"])
        self.assertEqual(contains.filter("t", Batch(values=[])), b"")

    def test_plugins_in_c_and_go(self):
        rows = [b"an error" if row % 10 == 3 else None if row % 10 == 4 else b"fine" for row in range(1_000)]
        for name in ("contains-c", "contains-go"):
            with self.subTest(name):
                if not plugin(name).exists():
                    self.skipTest("its compiler is not there")
                contains = Filter(plugin(name), {"text": "error"})
                # The collector of Go runs several times.
                for _ in range(300):
                    kept = contains.keep("t", Batch(values=rows))
                self.assertEqual(kept, [row % 10 == 3 for row in range(1_000)])
                with self.assertRaisesRegex(ConfigError, "text"):
                    Filter(plugin(name), {"text": 7})

    def test_all_columns_arrive(self):
        batch = Batch(
            keys=[None, b"k"],
            values=[b"v", None],
            timestamps=[1_700_000_000_123, -1],
            headers=[[("n", b"1"), ("m", None)], []],
        )
        self.assertEqual(Filter(plugin("columns")).keep("t", batch), [True, True])

    def test_a_column_that_is_missing(self):
        with self.assertRaisesRegex(ContractError, "reads values"):
            Filter(plugin("contains"), {"text": "error"}).filter("t", Batch(keys=[b"k"]))

    def test_a_configuration_that_is_refused(self):
        with self.assertRaises(ConfigError) as caught:
            Filter(plugin("contains"), {"text": ""})
        self.assertEqual(caught.exception.field, "/text")
        self.assertIn("the text is empty", str(caught.exception))

    def test_another_kind(self):
        with self.assertRaisesRegex(ContractError, "exports no filter"):
            Filter(plugin("murmur2"))

    def test_a_file_that_is_no_core_module(self):
        with self.assertRaisesRegex(ContractError, "plugin unbundle"):
            Filter(PLUGINS / "contains.wasm", {"text": "error"})

    def test_bad_rows_have_the_words_of_the_plugin(self):
        with self.assertRaises(RowErrors) as caught:
            Filter(plugin("bad-rows")).filter("t", Batch(values=[b"a", b"p", b"b", b"poison"]))
        self.assertEqual(caught.exception.rows, [(1, "this row is poison"), (3, "this row is poison")])

    def test_a_bad_batch_has_the_words_of_the_plugin(self):
        with self.assertRaisesRegex(BatchError, "^this batch is poison$"):
            Filter(plugin("bad-batch")).filter("t", Batch(values=[b"a"]))

    def test_a_trap_has_the_words_of_the_plugin_and_the_next_call_a_new_instance(self):
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)
        traps = Filter(plugin("traps"))
        for _ in range(3):
            with self.assertRaisesRegex(Trap, "trapped in filter: .*unreachable.*it said: my last words"):
                traps.filter("t", Batch(values=[b"x"]))
            # The plug-in remembers in its memory that it has trapped, and would say so.
            self.assertEqual(traps.keep("t", Batch(values=[b"a"])), [True])

    def test_answers_that_break_the_contract(self):
        for name, message in (
            ("no-such-row", "row 7 of 1"),
            ("wrong-size", "99 bytes for 1 rows"),
            ("beyond", "beyond the end of memory"),
            ("wrong-realloc", "beyond the end of memory"),
        ):
            with self.subTest(name), self.assertRaisesRegex(ContractError, message):
                Filter(plugin(name)).filter("t", Batch(values=[b"a"]))

    def test_memory_has_a_limit(self):
        grows = Filter(plugin("grows"))
        with self.assertRaises(Trap):
            grows.filter("t", Batch(values=[b"a"]))
        self.assertEqual(Filter(plugin("grows"), memory=64 << 20).keep("t", Batch(values=[b"a"])), [True])

    def test_an_endless_call_is_stopped(self):
        loops = Filter(plugin("loops"), deadline=1)
        for _ in range(2):
            with self.assertRaises(DeadlineError):
                loops.filter("t", Batch(values=[b"x"]))
        self.assertEqual(loops.keep("t", Batch(values=[b"a"])), [True])


if __name__ == "__main__":
    unittest.main()
