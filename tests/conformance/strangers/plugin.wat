;; A plugin for one slot and one record, by hand: no SDK, no compiler. It keeps to wit/pal and to nothing else of this project.
;;
;; It writes blocks into region 1 and marks the image in region 2 with 16 bytes, a magic number and the file's size. There is no
;; launcher for it, so nothing it marks ever runs: it cannot commit. What it allocates lives for one call.
(module
  (import "ota:pal/block-device@0.1.0" "regions" (func $regions (param i32)))
  (import "ota:pal/block-device@0.1.0" "read-at" (func $read_at (param i32 i64 i32 i32)))
  (import "ota:pal/block-device@0.1.0" "write-at" (func $write_at (param i32 i64 i32 i32 i32)))
  (import "ota:pal/block-device@0.1.0" "sync" (func $sync (param i32 i32)))

  (memory (export "memory") 8)

  ;; 16: where a call's result lies. 128: what an import returns. 256: the list of extents. 512: the record. 1024: texts.
  (data (i32.const 1024) "wat-plugin")
  (data (i32.const 1040) "1.0.0")
  (data (i32.const 1056) "wat-slot")
  (data (i32.const 1072) "not here, not now")
  (data (i32.const 512) "WATMARK1")
  ;; kinds: one string
  (data (i32.const 1104) "\20\04\00\00\08\00\00\00")
  ;; schemas: 1
  (data (i32.const 1120) "\01\00\00\00")

  ;; Bytes of the open transfer, 0 = none.
  (global $size (mut i64) (i64.const 0))
  (global $bump (mut i32) (i32.const 4096))

  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $new i32) (result i32)
    (local $at i32)
    (local.set $at
      (i32.and
        (i32.add (global.get $bump) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $bump (i32.add (local.get $at) (local.get $new)))
    (if (i32.gt_u (global.get $bump) (i32.const 524288)) (then unreachable))
    (local.get $at))

  ;; Every call ends here: what it allocated is free again.
  (func $end (result i32)
    (global.set $bump (i32.const 4096))
    (i32.const 16))

  ;; result<duty, failure>: finished(nothing)
  (func $done (result i32)
    (i64.store (i32.const 16) (i64.const 0))
    (i64.store (i32.const 24) (i64.const 0))
    (i64.store (i32.const 32) (i64.const 0))
    (call $end))

  ;; result<duty, failure>: failed, with a text of this module
  (func $fail (param $main i32) (param $sub i32) (result i32)
    (i32.store8 (i32.const 16) (i32.const 1))
    (i32.store8 (i32.const 24) (local.get $main))
    (i32.store (i32.const 28) (local.get $sub))
    (i32.store (i32.const 32) (i32.const 1072))
    (i32.store (i32.const 36) (i32.const 17))
    (call $end))

  ;; The failure of the import that wrote to 128 (result<_, failure> or result<list, failure>): passed on as it came.
  (func $pass_on (result i32)
    (call $fail (i32.load8_u (i32.const 132)) (i32.load (i32.const 136))))

  ;; result<_, failure> and result<list or blob, failure> have the failure 4 bytes from their start.
  (func $fail4 (param $main i32) (param $sub i32) (result i32)
    (i32.store8 (i32.const 16) (i32.const 1))
    (i32.store8 (i32.const 20) (local.get $main))
    (i32.store (i32.const 24) (local.get $sub))
    (i32.store (i32.const 28) (i32.const 1072))
    (i32.store (i32.const 32) (i32.const 17))
    (call $end))

  (func (export "ota:pal/describe@0.1.0#describe") (result i32)
    (i32.store (i32.const 16) (i32.const 1024)) (i32.store (i32.const 20) (i32.const 10))
    (i32.store (i32.const 24) (i32.const 1040)) (i32.store (i32.const 28) (i32.const 5))
    (i32.store (i32.const 32) (i32.const 1104)) (i32.store (i32.const 36) (i32.const 1))
    ;; direct; 131072 bytes a write
    (i32.store (i32.const 40) (i32.const 1)) (i32.store (i32.const 44) (i32.const 131072))
    (i32.store (i32.const 48) (i32.const 1120)) (i32.store (i32.const 52) (i32.const 1))
    (call $end))

  (func (export "ota:pal/image@0.1.0#open") (param i32 i32 i32 i32 i32 i32) (result i32)
    (if (i32.and (local.get 2) (i32.ne (local.get 3) (i32.const 1)))
      (then (return (call $fail4 (i32.const 0xdf) (local.get 3)))))
    (i32.store8 (i32.const 16) (i32.const 0))
    (call $end))

  ;; Takes the transfer's size, which lies 24 bytes from its start, if it fits into region 1.
  (func $take (param $transfer i32) (result i32)
    (local $wanted i64)
    (local.set $wanted (i64.load offset=24 (local.get $transfer)))
    (call $regions (i32.const 128))
    (if (i32.lt_u (i32.load (i32.const 132)) (i32.const 3))
      (then (return (call $fail (i32.const 0xd4) (i32.const 2)))))
    (if (i64.eqz (local.get $wanted))
      (then (return (call $fail (i32.const 0xd0) (i32.const 0)))))
    ;; a region is 40 bytes, its size 16 from its start
    (if (i64.gt_u (local.get $wanted) (i64.load offset=56 (i32.load (i32.const 128))))
      (then (return (call $fail (i32.const 0xe5) (i32.const 0)))))
    (global.set $size (local.get $wanted))
    (call $done))

  (func (export "ota:pal/image@0.1.0#create") (param i32) (result i32)
    (call $take (local.get 0)))

  (func (export "ota:pal/image@0.1.0#reopen") (param i32) (result i32)
    (call $take (local.get 0)))

  (func (export "ota:pal/image@0.1.0#write-block") (param $offset i64) (param $data i32) (param $length i32) (result i32)
    (local $long i64)
    (local.set $long (i64.extend_i32_u (local.get $length)))
    (if (i32.or
          (i64.gt_u (local.get $offset) (global.get $size))
          (i64.gt_u (local.get $long) (i64.sub (global.get $size) (local.get $offset))))
      (then (return (call $fail (i32.const 0xd0) (i32.const 1)))))
    (call $write_at (i32.const 1) (local.get $offset) (local.get $data) (local.get $length) (i32.const 128))
    (if (i32.load8_u (i32.const 128)) (then (return (call $pass_on))))
    (call $done))

  (func (export "ota:pal/image@0.1.0#extents") (result i32)
    (if (i64.eqz (global.get $size)) (then (return (call $fail4 (i32.const 0xd0) (i32.const 9)))))
    (i32.store (i32.const 256) (i32.const 1))
    (i64.store (i32.const 264) (i64.const 0))
    (i64.store (i32.const 272) (global.get $size))
    (i32.store8 (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (i32.const 256))
    (i32.store (i32.const 24) (i32.const 1))
    (call $end))

  ;; No header, no version, no product: finished(info(none, none))
  (func (export "ota:pal/image@0.1.0#examine") (result i32)
    (drop (call $done))
    (i32.store8 (i32.const 32) (i32.const 1))
    (i32.store8 (i32.const 36) (i32.const 0))
    (i32.store8 (i32.const 48) (i32.const 0))
    (i32.const 16))

  (func (export "ota:pal/image@0.1.0#install") (result i32) (call $done))

  ;; Writes the record from 512 and makes it durable.
  (func $mark (result i32)
    (call $write_at (i32.const 2) (i64.const 0) (i32.const 512) (i32.const 16) (i32.const 128))
    (if (i32.load8_u (i32.const 128)) (then (return (call $pass_on))))
    (call $sync (i32.const 2) (i32.const 128)) ;; durable
    (if (i32.load8_u (i32.const 128)) (then (return (call $pass_on)))) ;; looked at
    (call $done))

  (func (export "ota:pal/image@0.1.0#activate") (param i32 i32) (result i32)
    (if (i64.eqz (global.get $size)) (then (return (call $fail (i32.const 0xd0) (i32.const 9)))))
    (i64.store (i32.const 520) (global.get $size))
    (call $mark))

  (func (export "ota:pal/image@0.1.0#reset") (result i32)
    (drop (call $done))
    (i32.store8 (i32.const 32) (i32.const 3))
    (i32.const 16))

  (func (export "ota:pal/image@0.1.0#self-test") (result i32) (call $fail (i32.const 0xda) (i32.const 0)))

  ;; Nothing of it ever runs.
  (func (export "ota:pal/image@0.1.0#commit") (result i32) (call $fail (i32.const 0xe8) (i32.const 7)))

  (func (export "ota:pal/image@0.1.0#reject") (result i32)
    (i64.store (i32.const 520) (i64.const 0))
    (call $mark))

  ;; Armed if the record says so, else unknown: what runs, no record here says.
  (func (export "ota:pal/image@0.1.0#state") (result i32)
    (local $marked i64)
    (call $read_at (i32.const 2) (i64.const 0) (i32.const 16) (i32.const 128))
    (if (i32.load8_u (i32.const 128)) (then (return (call $pass_on))))
    (if (i64.eq (i64.load (i32.load (i32.const 132))) (i64.load (i32.const 512)))
      (then (local.set $marked (i64.load offset=8 (i32.load (i32.const 132))))))
    (drop (call $done))
    (i32.store8 (i32.const 32) (i32.const 2))
    ;; a torn record has no size: all ones, as the region was
    (i32.store8 (i32.const 36)
      (select (i32.const 4) (i32.const 0)
        (i32.and
          (i64.ne (local.get $marked) (i64.const 0))
          (i64.ne (local.get $marked) (i64.const -1)))))
    (i32.store8 (i32.const 40) (i32.const 0))
    (i32.store8 (i32.const 52) (i32.const 0))
    (i32.const 16))

  (func (export "ota:pal/image@0.1.0#abort") (result i32)
    (global.set $size (i64.const 0))
    (call $done))

  (func (export "ota:pal/image@0.1.0#step") (param i32) (result i32) (call $fail (i32.const 0xd0) (i32.const 0)))

  ;; result<blob, failure>: schema 1, no bytes
  (func (export "ota:pal/image@0.1.0#suspend") (result i32)
    (i32.store8 (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (i32.const 1))
    (i32.store (i32.const 24) (i32.const 4096))
    (i32.store (i32.const 28) (i32.const 0))
    (call $end))
)
