  ;; Answers the values as they came, as new values.
  ;; Parameters: topic 0, rows 8, timestamps 12, keys 20, values 48, headers 76.
  ;; Answer: keys 2052, values 2080 (data 2084, ends 2092, nulls 2100).
  (func $change (param $p i32) (result i32)
    (memory.fill (i32.const 2048) (i32.const 0) (i32.const 64))
    (memory.copy (i32.const 2080) (i32.add (local.get $p) (i32.const 48)) (i32.const 28))
    (i32.const 2048))

  (func (export "serialize") (param $p i32) (result i32)
    (local $rows i32)
    (local.set $rows (i32.load offset=8 (local.get $p)))
    ;;@serialize
    (drop (call $change (local.get $p)))
    ;;@serialized
    (i32.const 2048))

  (func (export "deserialize") (param $p i32) (result i32)
    (local $rows i32)
    (local.set $rows (i32.load offset=8 (local.get $p)))
    ;;@deserialize
    (drop (call $change (local.get $p)))
    ;;@deserialized
    (i32.const 2048))

  (export "cabi_post_serialize" (func $forget))
  (export "cabi_post_deserialize" (func $forget))
