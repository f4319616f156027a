//! Counts what a piece of code asks the allocator for, so that "never allocates by a claimed size" is a test.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

thread_local! {
    // Tests run on threads of their own. Constant and without a destructor: safe to touch in an allocator.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// What one call of [`watch`] saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The largest single request, in bytes.
    pub(crate) largest: usize,
    /// How many requests there were.
    pub(crate) count: usize,
}

/// Runs `work` on this thread and tells what it allocated. C libraries are not seen.
pub(crate) fn watch<T>(work: impl FnOnce() -> T) -> (T, Seen) {
    LARGEST.set(0);
    COUNT.set(0);
    let result = work();
    (result, Seen { largest: LARGEST.get(), count: COUNT.get() })
}

struct Watched;

fn note(size: usize) {
    LARGEST.set(LARGEST.get().max(size));
    COUNT.set(COUNT.get() + 1);
}

#[expect(unsafe_code, reason = "an allocator can only be watched from inside one")]
// SAFETY: every call is handed to the system's allocator as it came; noting a size allocates nothing.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
