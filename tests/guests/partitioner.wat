  ;; Row i goes to partition (i + the guest's number) modulo the partitions.
  ;; Parameters: topic 0, partitions 8, load 12, rows 20, timestamps 24, keys 32, values 60, headers 88.
  (func (export "partition") (param $p i32) (result i32)
    (local $rows i32) (local $partitions i32) (local $row i32) (local $out i32)
    (local.set $partitions (i32.load offset=8 (local.get $p)))
    (local.set $rows (i32.load offset=20 (local.get $p)))
    ;;@partition
    (local.set $out (call $allocate (i32.shl (local.get $rows) (i32.const 2))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $row) (local.get $rows)))
        (i32.store
          (i32.add (local.get $out) (i32.shl (local.get $row) (i32.const 2)))
          (i32.rem_u (call $choose (local.get $row)) (local.get $partitions)))
        (local.set $row (i32.add (local.get $row) (i32.const 1)))
        (br $next)))
    (i32.store8 (i32.const 2048) (i32.const 0))
    (i32.store (i32.const 2052) (local.get $out))
    (i32.store (i32.const 2056) (local.get $rows))
    ;;@partitioned
    (i32.const 2048))

  (func $choose (param $row i32) (result i32)
    ;;@choose
    (i32.add (local.get $row) (global.get $number)))

  (export "cabi_post_partition" (func $forget))
