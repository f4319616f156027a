  ;; "Compresses" by putting an S in front, which decompressing takes away again.
  (func (export "compress") (param $data i32) (param $length i32) (result i32)
    (local $out i32)
    ;;@compress
    (local.set $out (call $allocate (i32.add (local.get $length) (i32.const 1))))
    (i32.store8 (local.get $out) (i32.const 83))
    (memory.copy (i32.add (local.get $out) (i32.const 1)) (local.get $data) (local.get $length))
    (i32.store8 (i32.const 2048) (i32.const 0))
    (i32.store (i32.const 2052) (local.get $out))
    (i32.store (i32.const 2056) (i32.add (local.get $length) (i32.const 1)))
    ;;@compressed
    (i32.const 2048))

  (func (export "decompress") (param $data i32) (param $length i32) (param $max i32) (result i32)
    ;;@decompress
    (i32.store8 (i32.const 2048) (i32.const 0))
    (i32.store (i32.const 2052) (i32.add (local.get $data) (i32.const 1)))
    (i32.store (i32.const 2056) (i32.sub (local.get $length) (i32.const 1)))
    ;;@decompressed
    (i32.const 2048))

  (export "cabi_post_compress" (func $forget))
  (export "cabi_post_decompress" (func $forget))
