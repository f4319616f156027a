  ;; Keeps the rows whose value is empty or does not begin with an x.
  ;; Parameters: topic 0, rows 8, timestamps 12, keys 20, values 48, headers 76.
  (func (export "filter") (param $p i32) (result i32)
    (local $rows i32) (local $row i32) (local $out i32) (local $start i32) (local $end i32)
    (local $byte i32)
    (local.set $rows (i32.load offset=8 (local.get $p)))
    ;;@filter
    (local.set $out
      (call $allocate (i32.shr_u (i32.add (local.get $rows) (i32.const 7)) (i32.const 3))))
    (memory.fill (local.get $out) (i32.const 0)
      (i32.shr_u (i32.add (local.get $rows) (i32.const 7)) (i32.const 3)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $row) (local.get $rows)))
        (local.set $end
          (i32.load (i32.add (i32.load offset=60 (local.get $p))
            (i32.shl (local.get $row) (i32.const 2)))))
        (if (i32.eqz (call $begins_with_x
              (i32.load offset=52 (local.get $p)) (local.get $start) (local.get $end)))
          (then
            (local.set $byte (i32.add (local.get $out) (i32.shr_u (local.get $row) (i32.const 3))))
            (i32.store8 (local.get $byte)
              (i32.or (i32.load8_u (local.get $byte))
                (i32.shl (i32.const 1) (i32.and (local.get $row) (i32.const 7)))))))
        (local.set $start (local.get $end))
        (local.set $row (i32.add (local.get $row) (i32.const 1)))
        (br $next)))
    (i32.store8 (i32.const 2048) (i32.const 0))
    (i32.store (i32.const 2052) (local.get $out))
    (i32.store (i32.const 2056)
      (i32.shr_u (i32.add (local.get $rows) (i32.const 7)) (i32.const 3)))
    ;;@filtered
    (i32.const 2048))

  (func $begins_with_x (param $data i32) (param $start i32) (param $end i32) (result i32)
    (if (i32.ge_u (local.get $start) (local.get $end)) (then (return (i32.const 0))))
    (i32.eq (i32.load8_u (i32.add (local.get $data) (local.get $start))) (i32.const 120)))

  (export "cabi_post_filter" (func $forget))
