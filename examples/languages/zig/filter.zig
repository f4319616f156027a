//! contains-zig{"text":"error"}: a filter that keeps the records whose value contains a text, byte for byte. Zig has no
//! bindings, so the structures of the contract are written by hand: docs/by-hand.md describes them.

const std = @import("std");

/// A list or a text.
const List = extern struct {
    address: usize = 8,
    length: usize = 0,

    /// An empty slice may lie at the end of the address space, which the host rejects.
    fn of(slice: []const u8) List {
        return if (slice.len == 0) .{} else .{ .address = @intFromPtr(slice.ptr), .length = slice.len };
    }

    fn as(list: List, comptime Item: type) []const Item {
        return @as([*]const Item, @ptrFromInt(list.address))[0..list.length];
    }
};

const Column = extern struct { data: List, ends: List, nulls: List };
const OptionalColumn = extern struct { is_there: u8, column: Column };
/// The headers follow.
const Records = extern struct { rows: u32, timestamps: List, keys: OptionalColumn, values: OptionalColumn };
const Call = extern struct { topic: List, records: Records };
const Description = extern struct { name: List, version: List, kind: u8, columns: u8, format: [4]u32 };
const Configured = extern struct { is_error: u32 = 0, field: List = .{}, message: List = .{} };
const Kept = extern struct { is_error: u32 = 0, bitmap: List = .{} };

/// What functions return: one of each is enough, because the host reads it before the next call.
var description: Description = undefined;
var configured: Configured = .{};
var kept: Kept = .{};

/// The memory of a call, which ends with it.
var arena = std.heap.ArenaAllocator.init(std.heap.wasm_allocator);
/// The text to look for, which stays.
var wanted: []const u8 = "";

export fn cabi_realloc(old: usize, old_size: usize, alignment: usize, size: usize) usize {
    if (size == 0) return alignment;
    const memory = arena.allocator().rawAlloc(size, .fromByteUnits(alignment), 0) orelse @trap();
    if (old_size > 0) @memcpy(memory[0..old_size], @as([*]const u8, @ptrFromInt(old)));
    return @intFromPtr(memory);
}

export fn describe() *Description {
    const filter_kind = 3;
    const values = 4;
    description = .{
        .name = List.of("contains-zig"),
        .version = List.of("0.1.0"),
        .kind = filter_kind,
        .columns = values,
        .format = .{ 0, 0, 0, 0 },
    };
    return &description;
}

export fn configure(json: [*]const u8, length: usize) *Configured {
    configured = .{};
    read(json[0..length]) catch |failure| {
        const message = switch (failure) {
            error.MissingField => "missing field `text`",
            error.Empty => "the text is empty: every record would be kept",
            error.UnknownField => "unknown field",
            else => "a text is needed",
        };
        configured = .{ .is_error = 1, .field = List.of(field), .message = List.of(message) };
    };
    return &configured;
}

/// The field of the configuration that is wrong, as a JSON Pointer.
var field: []const u8 = "";

fn read(json: []const u8) !void {
    const config = try std.json.parseFromSliceLeaky(std.json.Value, arena.allocator(), json, .{});
    for (config.object.keys()) |name| {
        field = try std.mem.concat(arena.allocator(), u8, &.{ "/", name });
        if (!std.mem.eql(u8, name, "text")) return error.UnknownField;
    }
    field = "/text";
    const text = switch (config.object.get("text") orelse return error.MissingField) {
        .string => |text| text,
        else => return error.NoText,
    };
    if (text.len == 0) return error.Empty;
    wanted = try std.heap.wasm_allocator.dupe(u8, text);
}

export fn filter(call: *const Call) *Kept {
    const values = call.records.values.column;
    const data = values.data.as(u8);
    const bitmap = arena.allocator().alloc(u8, (call.records.rows + 7) / 8) catch @trap();
    @memset(bitmap, 0);
    var start: usize = 0;
    for (values.ends.as(u32), 0..) |end, row| {
        if (std.mem.indexOf(u8, data[start..end], wanted) != null) bitmap[row / 8] |= @as(u8, 1) << @intCast(row % 8);
        start = end;
    }
    kept.bitmap = List.of(bitmap);
    return &kept;
}

export fn cabi_post_filter(_: *Kept) void {
    _ = arena.reset(.retain_capacity);
}
