;; WASI preview 1 without a system: what a standard library needs to start and to print, and nothing more.
;; A build links this module to a plug-in that imports `wasi_snapshot_preview1`, so that the component imports only the
;; contract. `preview1.wasm` beside it is this file, assembled; a test compares them.
;;
;; - What the guest prints becomes lines of the host's log. Those of stdout are info. Of each write to stderr the first
;;   line is an error and the others are info. All lines after the start of Go's dump of a panic are info.
;; - The clock is a counter, and a wait is over at once: it moves the clock.
;; - Random numbers are always the same.
;; - There are no arguments, no environment and no files: each other call fails with EBADF (8).
;;
;; The line that is being printed is kept in the first KiB of the guest's memory, which linkers leave empty. Nothing is
;; allocated, because a guest may print while its allocator or its garbage collector runs.
(module
  (import "millstream:stage/host@1.0.0" "log" (func $log (param $level i32) (param $text i32) (param $length i32)))
  (import "env" "memory" (memory 0))

  ;; Levels of the contract.
  (global $ERROR i32 (i32.const 0))
  (global $INFO i32 (i32.const 2))
  ;; The line: where it begins, how long it may get, and how long it is.
  (global $LINE i32 (i32.const 64))
  (global $LINE_MAX i32 (i32.const 960))
  (global $used (mut i32) (i32.const 0))
  ;; The stream that the line was written to, and the level of the line.
  (global $stream (mut i32) (i32.const 0))
  (global $level (mut i32) (i32.const 2))
  ;; Whether a panic has been printed.
  (global $panics (mut i32) (i32.const 0))
  (global $nanoseconds (mut i64) (i64.const 1_000_000_000))
  (global $random (mut i64) (i64.const 0x853c49e6748fea9b))

  ;; Returns how many bytes the character at $at has, or 0 if it is not valid UTF-8 that ends at or before $end.
  (func $character (param $at i32) (param $end i32) (result i32)
    (local $first i32) (local $second i32) (local $length i32)
    (local.set $first (i32.load8_u (local.get $at)))
    (if (i32.lt_u (local.get $first) (i32.const 0x80)) (then (return (i32.const 1))))
    (if (i32.or (i32.lt_u (local.get $first) (i32.const 0xc2)) (i32.gt_u (local.get $first) (i32.const 0xf4)))
      (then (return (i32.const 0))))
    (local.set $length
      (i32.add (i32.const 2)
        (i32.add
          (i32.ge_u (local.get $first) (i32.const 0xe0))
          (i32.ge_u (local.get $first) (i32.const 0xf0)))))
    (if (i32.gt_u (i32.add (local.get $at) (local.get $length)) (local.get $end)) (then (return (i32.const 0))))
    ;; The second byte has a smaller range after e0, ed, f0 and f4.
    (local.set $second (i32.load8_u offset=1 (local.get $at)))
    (if (i32.and (i32.eq (local.get $first) (i32.const 0xe0)) (i32.lt_u (local.get $second) (i32.const 0xa0)))
      (then (return (i32.const 0))))
    (if (i32.and (i32.eq (local.get $first) (i32.const 0xed)) (i32.gt_u (local.get $second) (i32.const 0x9f)))
      (then (return (i32.const 0))))
    (if (i32.and (i32.eq (local.get $first) (i32.const 0xf0)) (i32.lt_u (local.get $second) (i32.const 0x90)))
      (then (return (i32.const 0))))
    (if (i32.and (i32.eq (local.get $first) (i32.const 0xf4)) (i32.gt_u (local.get $second) (i32.const 0x8f)))
      (then (return (i32.const 0))))
    ;; Each byte after the first is 10xxxxxx.
    (local.set $end (i32.add (local.get $at) (local.get $length)))
    (loop $next
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (if (i32.lt_u (local.get $at) (local.get $end))
        (then
          (br_if $next (i32.eq (i32.and (i32.load8_u (local.get $at)) (i32.const 0xc0)) (i32.const 0x80)))
          (return (i32.const 0)))))
    (local.get $length))

  ;; Replaces the bytes of the line that are not valid UTF-8. The host would end the call for one.
  (func $clean
    (local $at i32) (local $end i32) (local $length i32)
    (local.set $at (global.get $LINE))
    (local.set $end (i32.add (global.get $LINE) (global.get $used)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $length (call $character (local.get $at) (local.get $end)))
        (if (i32.eqz (local.get $length))
          (then
            (i32.store8 (local.get $at) (i32.const 63)) ;; ?
            (local.set $length (i32.const 1))))
        (local.set $at (i32.add (local.get $at) (local.get $length)))
        (br $next))))

  ;; Logs the line, and begins another.
  (func $end_line
    (local $start i64)
    (if (i32.eqz (global.get $used)) (then (return)))
    (call $clean)
    (call $log (global.get $level) (global.get $LINE) (global.get $used))
    ;; How Go begins the dump of a panic: "panic: " or "fatal er".
    (local.set $start (i64.load (global.get $LINE)))
    (if (i32.or
          (i64.eq (local.get $start) (i64.const 0x72_65_20_6c_61_74_61_66))
          (i64.eq (i64.shl (local.get $start) (i64.const 8)) (i64.const 0x20_3a_63_69_6e_61_70_00)))
      (then (global.set $panics (i32.const 1))))
    (global.set $used (i32.const 0))
    (global.set $level (global.get $INFO)))

  (func $print (param $byte i32)
    (if (i32.eq (local.get $byte) (i32.const 10)) (then (call $end_line) (return)))
    (if (i32.eq (global.get $used) (global.get $LINE_MAX)) (then (call $end_line)))
    (i32.store8 (i32.add (global.get $LINE) (global.get $used)) (local.get $byte))
    (global.set $used (i32.add (global.get $used) (i32.const 1))))

  (func (export "fd_write") (param $fd i32) (param $parts i32) (param $count i32) (param $written i32) (result i32)
    (local $sum i32) (local $at i32) (local $end i32)
    (if (i32.gt_u (i32.sub (local.get $fd) (i32.const 1)) (i32.const 1)) (then (return (i32.const 8))))
    (if (i32.ne (local.get $fd) (global.get $stream)) (then (call $end_line)))
    (global.set $stream (local.get $fd))
    (global.set $level
      (select (global.get $ERROR) (global.get $INFO)
        (i32.and (i32.eq (local.get $fd) (i32.const 2)) (i32.eqz (global.get $panics)))))
    (block $done
      (loop $part
        (br_if $done (i32.eqz (local.get $count)))
        (local.set $at (i32.load (local.get $parts)))
        (local.set $end (i32.add (local.get $at) (i32.load offset=4 (local.get $parts))))
        (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $parts))))
        (block $part_done
          (loop $byte
            (br_if $part_done (i32.eq (local.get $at) (local.get $end)))
            (call $print (i32.load8_u (local.get $at)))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br $byte)))
        (local.set $parts (i32.add (local.get $parts) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $part)))
    (i32.store (local.get $written) (local.get $sum))
    (i32.const 0))

  ;; stdin, stdout and stderr are terminals (file type 2) without rights, so that C prints line by line.
  (func (export "fd_fdstat_get") (param $fd i32) (param $stat i32) (result i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2)) (then (return (i32.const 8))))
    (i64.store (local.get $stat) (i64.const 2))
    (i64.store offset=8 (local.get $stat) (i64.const 0))
    (i64.store offset=16 (local.get $stat) (i64.const 0))
    (i32.const 0))

  (func (export "proc_exit") (param $code i32)
    (call $end_line)
    (unreachable))
  (func (export "proc_raise") (param $signal i32) (result i32)
    (call $end_line)
    (unreachable))
  (func (export "sched_yield") (result i32)
    (i32.const 0))

  (func
    (export "args_sizes_get")
    (export "environ_sizes_get")
    (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (i32.const 0))
  (func
    (export "args_get")
    (export "environ_get")
    (param i32 i32) (result i32)
    (i32.const 0))

  (func (export "clock_res_get") (param $clock i32) (param $resolution i32) (result i32)
    (i64.store (local.get $resolution) (i64.const 1_000))
    (i32.const 0))
  (func (export "clock_time_get") (param $clock i32) (param $precision i64) (param $time i32) (result i32)
    (global.set $nanoseconds (i64.add (global.get $nanoseconds) (i64.const 1_000)))
    (i64.store (local.get $time) (global.get $nanoseconds))
    (i32.const 0))

  ;; A linear congruential generator; its high bits are the best.
  (func (export "random_get") (param $at i32) (param $length i32) (result i32)
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $length)))
        (global.set $random
          (i64.add
            (i64.mul (global.get $random) (i64.const 6364136223846793005))
            (i64.const 1442695040888963407)))
        (i64.store8 (local.get $at) (i64.shr_u (global.get $random) (i64.const 56)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (local.set $length (i32.sub (local.get $length) (i32.const 1)))
        (br $next)))
    (i32.const 0))

  ;; Every subscription has happened, without an error. Go panics if it cannot wait.
  (func (export "poll_oneoff") (param $in i32) (param $out i32) (param $count i32) (param $happened i32) (result i32)
    (local $time i64)
    (i32.store (local.get $happened) (local.get $count))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $count)))
        ;; A clock, until a time or for a time.
        (if (i32.eqz (i32.load8_u offset=8 (local.get $in)))
          (then
            (local.set $time (i64.load offset=24 (local.get $in)))
            (if (i32.eqz (i32.and (i32.load16_u offset=40 (local.get $in)) (i32.const 1)))
              (then (local.set $time (i64.add (local.get $time) (global.get $nanoseconds)))))
            (if (i64.gt_u (local.get $time) (global.get $nanoseconds))
              (then (global.set $nanoseconds (local.get $time))))))
        (i64.store (local.get $out) (i64.load (local.get $in)))
        (i64.store offset=8 (local.get $out) (i64.const 0))
        (i32.store8 offset=10 (local.get $out) (i32.load8_u offset=8 (local.get $in)))
        (i64.store offset=16 (local.get $out) (i64.const 0))
        (i64.store offset=24 (local.get $out) (i64.const 0))
        (local.set $in (i32.add (local.get $in) (i32.const 48)))
        (local.set $out (i32.add (local.get $out) (i32.const 32)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $next)))
    (i32.const 0))

  ;; There are no files and no sockets.
  (func
    (export "fd_advise")
    (export "fd_filestat_set_times")
    (param i32 i64 i64 i32) (result i32)
    (i32.const 8))
  (func
    (export "fd_allocate")
    (export "fd_fdstat_set_rights")
    (param i32 i64 i64) (result i32)
    (i32.const 8))
  (func
    (export "fd_close")
    (export "fd_datasync")
    (export "fd_sync")
    (param i32) (result i32)
    (i32.const 8))
  (func
    (export "fd_fdstat_set_flags")
    (export "fd_filestat_get")
    (export "fd_prestat_get")
    (export "fd_renumber")
    (export "fd_tell")
    (export "sock_shutdown")
    (param i32 i32) (result i32)
    (i32.const 8))
  (func
    (export "fd_filestat_set_size")
    (param i32 i64) (result i32)
    (i32.const 8))
  (func
    (export "fd_pread")
    (export "fd_pwrite")
    (export "fd_readdir")
    (param i32 i32 i32 i64 i32) (result i32)
    (i32.const 8))
  (func
    (export "fd_prestat_dir_name")
    (export "path_create_directory")
    (export "path_remove_directory")
    (export "path_unlink_file")
    (export "sock_accept")
    (param i32 i32 i32) (result i32)
    (i32.const 8))
  (func
    (export "fd_read")
    (param i32 i32 i32 i32) (result i32)
    (i32.const 8))
  (func
    (export "fd_seek")
    (param i32 i64 i32 i32) (result i32)
    (i32.const 8))
  (func
    (export "path_filestat_get")
    (export "path_symlink")
    (export "sock_send")
    (param i32 i32 i32 i32 i32) (result i32)
    (i32.const 8))
  (func
    (export "path_filestat_set_times")
    (param i32 i32 i32 i32 i64 i64 i32) (result i32)
    (i32.const 8))
  (func
    (export "path_link")
    (param i32 i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 8))
  (func
    (export "path_open")
    (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)
    (i32.const 8))
  (func
    (export "path_readlink")
    (export "path_rename")
    (export "sock_recv")
    (param i32 i32 i32 i32 i32 i32) (result i32)
    (i32.const 8)))
