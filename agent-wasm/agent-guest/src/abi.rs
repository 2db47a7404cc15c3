//! The canonical ABI of the component model, as far as this world needs it: where a value lies in memory follows from the
//! order of its fields and cases, so a declaration that reads like the contract says all (`contract.rs`).
//!
//! It knows no type of the contract. Nothing is checked: the host lowers and lifts by the component's own types.

#![expect(unsafe_code, reason = "the canonical ABI is about raw memory")]

use alloc::alloc::dealloc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// What a value takes in memory.
pub(crate) trait Layout {
    const SIZE: usize;
    /// What its address is a multiple of.
    const ALIGN: usize;
    /// Whether it lies in a list as Rust has it: then lists change hands without a copy.
    const PLAIN: bool = false;
}

/// A value that the host hands in.
pub(crate) trait Lift: Layout + Sized {
    fn lift(at: Place) -> Self;
}

/// Values that the host hands in as one: where a case carries a list, each item is a value.
pub(crate) trait Several: Sized {
    /// None = there are no more, and the list is given back. To be asked in order.
    fn nth(at: Place, index: usize) -> Option<Self>;
}

/// A value that is handed to the host.
pub(crate) trait Lower: Layout {
    /// Lays it out. Texts are not copied, so it must stay as long as the host reads.
    fn lower(&self, at: Place, kept: &mut Kept);
}

/// Lists that had to be laid out anew, for as long as the host reads.
pub(crate) type Kept = Vec<Vec<u64>>;

/// Where a value lies.
///
/// Whoever makes one vouches that there is room for the value, or that the value is there; that it is lifted once, for
/// its texts and lists change hands; and that nothing else looks at it meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Place(*mut u8);

impl Place {
    /// # Safety
    /// As the type says.
    pub(crate) const unsafe fn new(at: *mut u8) -> Self {
        Self(at)
    }

    pub(crate) const fn address(self) -> *mut u8 {
        self.0
    }

    pub(crate) const fn at(self, offset: usize) -> Self {
        Self(self.0.wrapping_add(offset))
    }

    fn read<T: Copy>(self, offset: usize) -> T {
        // SAFETY: the value is there, and the canonical ABI aligns it.
        unsafe { self.at(offset).0.cast::<T>().read() }
    }

    fn write<T>(self, offset: usize, value: T) {
        // SAFETY: there is room, and the canonical ABI aligns it.
        unsafe { self.at(offset).0.cast::<T>().write(value) }
    }

    /// The number of the case of a variant.
    pub(crate) fn case(self) -> u8 {
        self.read(0)
    }

    /// Gives back the memory of a value that was lifted.
    pub(crate) fn free(self, size: usize, align: usize) {
        if size > 0 {
            // SAFETY: it was allocated for the host by `cabi_realloc` with this size and alignment.
            unsafe {
                let layout = alloc::alloc::Layout::from_size_align_unchecked(size, align);
                dealloc(self.0, layout);
            }
        }
    }

    /// A list: where, and how many.
    fn list(self) -> (*mut u8, usize) {
        (self.read(0), self.read(4))
    }

    /// An item of a list; behind the last one none, and the list is given back.
    pub(crate) fn item<T: Layout>(self, index: usize) -> Option<Self> {
        let (start, count) = self.list();
        if index < count {
            return Some(Self(start).at(index * T::SIZE));
        }
        Self(start).free(count * T::SIZE, T::ALIGN);
        None
    }

    fn set_list(self, start: *const u8, count: usize) {
        self.write(0, start);
        self.write(4, count);
    }
}

/// The fields of a record, or what the case of a variant carries, one after the other.
pub(crate) struct Fields {
    base: Place,
    offset: usize,
}

impl Fields {
    #[inline(always)]
    pub(crate) const fn new(base: Place) -> Self {
        Self { base, offset: 0 }
    }

    /// Where the next field lies, of this type.
    #[inline(always)]
    pub(crate) fn next<T: Layout>(&mut self) -> Place {
        let offset = self.offset.next_multiple_of(T::ALIGN);
        self.offset = offset + T::SIZE;
        self.base.at(offset)
    }

    #[inline(always)]
    pub(crate) fn lift<T: Lift>(&mut self) -> T {
        T::lift(self.next::<T>())
    }

    #[inline(always)]
    pub(crate) fn lower<T: Lower>(&mut self, value: &T, kept: &mut Kept) {
        value.lower(self.next::<T>(), kept);
    }
}

/// Size and alignment of values that lie behind each other, or in the same place.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    size: usize,
    align: usize,
}

impl Extent {
    pub(crate) const NOTHING: Self = Self { size: 0, align: 1 };

    /// With a value behind it.
    pub(crate) const fn then<T: Layout>(self) -> Self {
        Self {
            size: self.size.next_multiple_of(T::ALIGN) + T::SIZE,
            align: larger(self.align, T::ALIGN),
        }
    }

    /// With something else in its place.
    pub(crate) const fn or(self, other: Self) -> Self {
        Self {
            size: larger(self.size, other.size),
            align: larger(self.align, other.align),
        }
    }

    /// Behind the number of a case, one byte.
    pub(crate) const fn behind_case(self) -> Self {
        Self {
            size: self.align + self.size,
            align: self.align,
        }
    }

    pub(crate) const fn size(self) -> usize {
        self.size.next_multiple_of(self.align)
    }

    pub(crate) const fn align(self) -> usize {
        self.align
    }
}

const fn larger(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

/// What a type that is not a number takes.
macro_rules! extent {
    ([$( $generic:tt )*] $type:ty = $extent:expr) => {
        impl<$( $generic )*> $crate::abi::Layout for $type {
            const SIZE: usize = $extent.size();
            const ALIGN: usize = $extent.align();
        }
    };
}

/// Address and length.
const LIST: Extent = Extent::NOTHING.then::<u32>().then::<u32>();

extent! { [] bool = Extent::NOTHING.then::<u8>() }
extent! { [] String = LIST }
extent! { [] &str = LIST }
extent! { [T] Vec<T> = LIST }
extent! { [T] &[T] = LIST }
extent! { [A: Layout, B: Layout] (A, B) = Extent::NOTHING.then::<A>().then::<B>() }
extent! { [T: Layout] Option<T> = Extent::NOTHING.then::<T>().behind_case() }
extent! {
    [T: Layout, E: Layout] Result<T, E> = Extent::NOTHING.then::<T>().or(Extent::NOTHING.then::<E>()).behind_case()
}

macro_rules! plain {
    ($( $type:ident )+) => { $(
        impl Layout for $type {
            const SIZE: usize = size_of::<Self>();
            const ALIGN: usize = size_of::<Self>();
            const PLAIN: bool = true;
        }
        impl Lift for $type {
            fn lift(at: Place) -> Self {
                at.read(0)
            }
        }
        impl Lower for $type {
            fn lower(&self, at: Place, _: &mut Kept) {
                at.write(0, *self);
            }
        }
    )+ };
}

plain! { u8 u16 u32 u64 }

impl Lift for bool {
    fn lift(at: Place) -> Self {
        at.case() != 0
    }
}

impl Lift for String {
    fn lift(at: Place) -> Self {
        // SAFETY: a string of the component model is UTF-8; the host has checked it.
        unsafe { Self::from_utf8_unchecked(Vec::lift(at)) }
    }
}

impl Lower for String {
    fn lower(&self, at: Place, _: &mut Kept) {
        at.set_list(self.as_ptr(), self.len());
    }
}

impl Lower for &str {
    fn lower(&self, at: Place, _: &mut Kept) {
        at.set_list(self.as_ptr(), self.len());
    }
}

impl<T: Lift> Lift for Vec<T> {
    #[inline(never)]
    fn lift(at: Place) -> Self {
        let (start, count) = at.list();
        if T::PLAIN {
            // SAFETY: it was allocated for the host by `cabi_realloc` with this size, and is nobody else's.
            return unsafe { Self::from_raw_parts(start.cast(), count, count) };
        }
        let mut list = Self::with_capacity(count);
        let mut index = 0;
        while let Some(item) = at.item::<T>(index) {
            // SAFETY: there is room for `count` items; `push` would bring the code that makes more, for each type.
            unsafe {
                list.as_mut_ptr().add(index).write(T::lift(item));
                index += 1;
                list.set_len(index);
            }
        }
        list
    }
}

impl<T: Lower> Lower for Vec<T> {
    fn lower(&self, at: Place, kept: &mut Kept) {
        self.as_slice().lower(at, kept);
    }
}

impl<T: Lower> Lower for &[T] {
    fn lower(&self, at: Place, kept: &mut Kept) {
        if T::PLAIN {
            return at.set_list(self.as_ptr().cast(), self.len());
        }
        let mut area = vec![0; (self.len() * T::SIZE).div_ceil(8)];
        let items = Place(area.as_mut_ptr().cast());
        for (index, item) in self.iter().enumerate() {
            item.lower(items.at(index * T::SIZE), kept);
        }
        at.set_list(items.0, self.len());
        kept.push(area);
    }
}

impl<A: Lift, B: Lift> Lift for (A, B) {
    fn lift(at: Place) -> Self {
        let mut fields = Fields::new(at);
        (fields.lift(), fields.lift())
    }
}

impl<T: Lift> Lift for Option<T> {
    fn lift(at: Place) -> Self {
        (at.case() != 0).then(|| T::lift(at.at(Self::ALIGN)))
    }
}

impl<T: Lower> Lower for Option<T> {
    fn lower(&self, at: Place, kept: &mut Kept) {
        at.write(0, u8::from(self.is_some()));
        if let Some(value) = self {
            value.lower(at.at(Self::ALIGN), kept);
        }
    }
}

impl<T: Lift, E: Lift> Lift for Result<T, E> {
    fn lift(at: Place) -> Self {
        let value = at.at(Self::ALIGN);
        if at.case() == 0 {
            Ok(T::lift(value))
        } else {
            Err(E::lift(value))
        }
    }
}

impl<T: Lower, E: Lower> Lower for Result<T, E> {
    fn lower(&self, at: Place, kept: &mut Kept) {
        at.write(0, u8::from(self.is_err()));
        let place = at.at(Self::ALIGN);
        match self {
            Ok(value) => value.lower(place, kept),
            Err(error) => error.lower(place, kept),
        }
    }
}

/// Declares a record that is lifted, lowered, or both: its fields in the contract's order.
macro_rules! record {
    ([$( $how:ident )+] $name:ident $fields:tt) => {
        record! { @layout $name $fields }
        $( record! { @$how $name $fields } )+
    };
    (@layout $name:ident { $( $field:ident: $type:ty, )+ }) => {
        extent! { [] $name = Extent::NOTHING $( .then::<$type>() )+ }
    };
    (@lift $name:ident { $( $field:ident: $type:ty, )+ }) => {
        impl Lift for $name {
            fn lift(at: Place) -> Self {
                let mut fields = Fields::new(at);
                Self { $( $field: fields.lift::<$type>(), )+ }
            }
        }
    };
    (@lower $name:ident { $( $field:ident: $type:ty, )+ }) => {
        impl Lower for $name {
            fn lower(&self, at: Place, kept: &mut Kept) {
                let mut fields = Fields::new(at);
                $( fields.lower::<$type>(&self.$field, kept); )+
            }
        }
    };
}

/// Declares a variant that is lifted: its cases with their numbers. A case with fields carries a record or a tuple.
macro_rules! variant {
    ($name:ident { $( $number:literal $case:ident $( ($type:ty) )? $( { $( $field:ident: $field_type:ty, )+ } )?, )+ }) => {
        extent! {
            [] $name = Extent::NOTHING
                $( .or(Extent::NOTHING $( .then::<$type>() )? $( $( .then::<$field_type>() )+ )?) )+
                .behind_case()
        }
        impl Lift for $name {
            fn lift(at: Place) -> Self {
                let mut fields = Fields::new(at.at(Self::ALIGN));
                match at.case() {
                    $( $number => Self::$case
                        $( (fields.lift::<$type>()) )?
                        $( { $( $field: fields.lift::<$field_type>(), )+ } )?, )+
                    // The host lowers by the component's own types.
                    _ => core::arch::wasm32::unreachable(),
                }
            }
        }
    };
}

/// Declares a variant of which one case, in brackets, carries a list of such records: each is a value.
macro_rules! several {
    ($name:ident {
        $( $number:literal $case:ident { $( $field:ident: $field_type:ty, )+ }, )+
        [ $list:literal $item:ident { $( $part:ident: $part_type:ty, )+ } ],
        $( $further:literal $other:ident $( ($type:ty) )? $( { $( $member:ident: $member_type:ty, )+ } )?, )+
    }) => {
        extent! {
            [] $name = Extent::NOTHING
                $( .or(Extent::NOTHING $( .then::<$field_type>() )+) )+
                .or(Extent::NOTHING.then::<Vec<u8>>())
                $( .or(Extent::NOTHING $( .then::<$type>() )? $( $( .then::<$member_type>() )+ )?) )+
                .behind_case()
        }
        impl Several for $name {
            fn nth(at: Place, index: usize) -> Option<Self> {
                let mut value = at.at(Self::ALIGN);
                if at.case() == $list {
                    value = value.item::<($( $part_type, )+)>(index)?;
                } else if index > 0 {
                    return None;
                }
                let mut fields = Fields::new(value);
                Some(match at.case() {
                    $( $number => Self::$case { $( $field: fields.lift::<$field_type>(), )+ }, )+
                    $list => Self::$item { $( $part: fields.lift::<$part_type>(), )+ },
                    $( $further => Self::$other
                        $( (fields.lift::<$type>()) )?
                        $( { $( $member: fields.lift::<$member_type>(), )+ } )?, )+
                    // The host lowers by the component's own types.
                    _ => core::arch::wasm32::unreachable(),
                })
            }
        }
    };
}

pub(crate) use {extent, record, several, variant};
