  ;; The part that every guest has: memory, an allocator that starts again after each call, and what
  ;; a guest says about itself. A marker of two semicolons and an at sign names a hook: a hostile guest
  ;; puts code there, a well-behaved one nothing.
  ;;
  ;; 64      the name          1024    the description, made by the builder
  ;; 128     the version       2048    where answers are written
  ;; 192     a text            4096    the heap
  ;;@module
  (global $heap (mut i32) (i32.const 4096))

  (func $allocate (param $size i32) (result i32)
    (local $start i32) (local $end i32)
    (local.set $start (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (local.set $end (i32.add (local.get $start) (local.get $size)))
    (if (i32.gt_u (local.get $end) (i32.mul (memory.size) (i32.const 65536)))
      (then
        (if (i32.eq (i32.const -1)
              (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1))))
          (then unreachable))))
    (global.set $heap (local.get $end))
    (local.get $start))

  (func (export "cabi_realloc")
    (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    ;;@realloc
    (call $allocate (local.get $size)))

  (func (export "describe") (result i32)
    ;;@describe
    (i32.const 1024))

  (func (export "configure") (param $json i32) (param $length i32) (result i32)
    ;;@configure
    (i32.store8 (i32.const 2048) (i32.const 0))
    (i32.const 2048))

  (func $forget (param i32)
    (global.set $heap (i32.const 4096)))
  (export "cabi_post_configure" (func $forget))
