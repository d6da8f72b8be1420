#include "formats/pickle.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "saif/json.h"

namespace saif {
namespace {

using Kind = Pickle::Kind;
using Node = Pickle::Node;

constexpr const char* kOrderedDict = "collections.OrderedDict";
constexpr const char* kRebuildTensor = "torch._utils._rebuild_tensor_v2";
constexpr const char* kRebuildParameter = "torch._utils._rebuild_parameter";
// A file of tensors has some twenty values for each; without a limit a byte of a hostile file would cost a node.
constexpr size_t kMaxNodes = size_t{1} << 18;
constexpr size_t kMaxArguments = 16;
constexpr size_t kMaxKey = 1024;  // bytes of a storage's name, or of a dictionary's key

struct StorageType {
  const char* name;
  DType dtype;
};
constexpr std::array kStorages = {
    StorageType{"torch.FloatStorage", DType::kF32},     StorageType{"torch.HalfStorage", DType::kF16},
    StorageType{"torch.BFloat16Storage", DType::kBf16}, StorageType{"torch.DoubleStorage", DType::kF64},
    StorageType{"torch.LongStorage", DType::kI64},      StorageType{"torch.IntStorage", DType::kI32},
    StorageType{"torch.ShortStorage", DType::kI16},     StorageType{"torch.CharStorage", DType::kI8},
    StorageType{"torch.ByteStorage", DType::kU8},       StorageType{"torch.BoolStorage", DType::kBool},
};

const StorageType* find_storage(const std::string& name) {
  const auto at = std::find_if(kStorages.begin(), kStorages.end(), [&](const auto& s) { return name == s.name; });
  return at == kStorages.end() ? nullptr : &*at;
}

// The stack machine. Every failure is an exception inside and a Result outside.
class Machine {
 public:
  explicit Machine(std::span<const std::byte> bytes) : bytes_(bytes) {}

  Pickle run() {
    for (;;) {
      const auto op = static_cast<unsigned char>(take(1)[0]);
      if (op == '.') break;
      if (!read_value(op) && !read_container(op) && !read_memo(op) && !read_object(op)) {
        fail("operation " + std::to_string(op) + " at byte " + std::to_string(at_ - 1) +
             " is not one that tensors are stored with");
      }
    }
    out_.root = pop();
    for (const Node& node : out_.nodes) {
      if (node.kind == Kind::kDict) require_keys_once(node);
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] static void fail(const std::string& why) { throw Error(Errc::kBadFormat, "pickle: " + why); }

  static std::string quoted(const std::string& text) {
    return Json(text.size() > 160 ? text.substr(0, 157) + "..." : text).dump();
  }

  // Input.
  std::string_view take(uint64_t size) {
    if (size > bytes_.size() - at_) {
      fail("it is cut off: " + std::to_string(size) + " bytes are needed at byte " + std::to_string(at_) + " of " +
           std::to_string(bytes_.size()));
    }
    const std::string_view out(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return out;
  }

  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }

  std::string line() {
    const auto* begin = reinterpret_cast<const char*>(bytes_.data()) + at_;
    const void* end = std::memchr(begin, '\n', bytes_.size() - at_);
    if (end == nullptr) fail("it is cut off in a name");
    std::string out(take(static_cast<size_t>(static_cast<const char*>(end) - begin)));
    take(1);
    return out;
  }

  // Python keeps the last value of a key that is given twice; a reader that looks for the first sees another file.
  void require_keys_once(const Node& dictionary) const {
    std::unordered_set<std::string_view> keys;
    for (size_t i = 0; i + 1 < dictionary.children.size(); i += 2) {
      const Node& key = out_.nodes[dictionary.children[i]];
      if (key.kind != Kind::kString) continue;
      if (key.text.size() > kMaxKey) fail("a dictionary's key is longer than any that torch writes");
      if (!keys.insert(key.text).second) fail("a dictionary gives the key " + quoted(key.text) + " twice");
    }
  }

  // Stack.
  uint32_t push(Node node) {
    if (out_.nodes.size() >= kMaxNodes) {
      fail("it holds more than " + std::to_string(kMaxNodes) + " values; expected a file of tensors");
    }
    out_.nodes.push_back(std::move(node));
    stack_.push_back(static_cast<uint32_t>(out_.nodes.size() - 1));
    return stack_.back();
  }

  uint32_t top() const {
    if (stack_.empty() || out_.nodes[stack_.back()].kind == Kind::kMark)
      fail("its stack is empty where a value is needed");
    return stack_.back();
  }

  uint32_t pop() {
    const uint32_t index = top();
    stack_.pop_back();
    return index;
  }

  // The values above the last mark, which goes too.
  std::vector<uint32_t> pop_to_mark() {
    const auto mark =
        std::find_if(stack_.rbegin(), stack_.rend(), [&](uint32_t i) { return out_.nodes[i].kind == Kind::kMark; });
    if (mark == stack_.rend()) fail("a mark is missing");
    std::vector<uint32_t> out(mark.base(), stack_.end());
    stack_.erase(mark.base() - 1, stack_.end());
    return out;
  }

  std::vector<uint32_t> pop_many(size_t count) {
    std::vector<uint32_t> out(count);
    for (size_t i = count; i-- > 0;) out[i] = pop();
    return out;
  }

  void push_int(int64_t value) {
    push({.kind = Kind::kInt, .integer = value, .text = {}, .children = {}, .shape = {}, .strides = {}});
  }
  void push_text(Kind kind, std::string text) {
    Node node;
    node.kind = kind;
    node.text = std::move(text);
    push(std::move(node));
  }
  void push_children(Kind kind, std::vector<uint32_t> children) {
    Node node;
    node.kind = kind;
    node.children = std::move(children);
    push(std::move(node));
  }
  void push_bool(bool value) {
    Node node;
    node.kind = Kind::kBool;
    node.integer = value ? 1 : 0;
    push(std::move(node));
  }

  bool read_value(unsigned char op) {
    switch (op) {
      case 0x80:  // PROTO
        take(1);
        return true;
      case 0x95:  // FRAME
        take(8);
        return true;
      case 'N':
        push({});
        return true;
      case 0x88:
      case 0x89:
        push_bool(op == 0x88);
        return true;
      case 'J':
        push_int(number<int32_t>());
        return true;
      case 'K':
        push_int(number<uint8_t>());
        return true;
      case 'M':
        push_int(number<uint16_t>());
        return true;
      case 0x8a:  // LONG1
        push_int(read_long());
        return true;
      case 'G':
        push_float();
        return true;
      default:
        return read_string(op);
    }
  }

  bool read_string(unsigned char op) {
    uint64_t size = 0;
    switch (op) {
      case 'X':
      case 'T':
      case 'B':
        size = number<uint32_t>();
        break;
      case 0x8c:
      case 'U':
      case 'C':
        size = number<uint8_t>();
        break;
      case 0x8d:
        size = number<uint64_t>();
        break;
      default:
        return false;
    }
    push_text(Kind::kString, std::string(take(size)));
    return true;
  }

  int64_t read_long() {
    const auto size = number<uint8_t>();
    if (size > 8) fail("an integer has " + std::to_string(size) + " bytes; expected at most 8");
    const std::string_view digits = take(size);
    uint64_t value = size > 0 && (digits.back() & 0x80) != 0 ? ~uint64_t{0} : 0;  // the sign goes on
    for (size_t i = size; i-- > 0;) value = (value << 8) | static_cast<unsigned char>(digits[i]);
    return static_cast<int64_t>(value);
  }

  void push_float() {  // big-endian
    uint64_t bits = 0;
    for (const char c : take(8)) bits = (bits << 8) | static_cast<unsigned char>(c);
    Node node;
    node.kind = Kind::kFloat;
    node.number = std::bit_cast<double>(bits);
    push(std::move(node));
  }

  bool read_container(unsigned char op) {
    switch (op) {
      case '(':
        push_children(Kind::kMark, {});
        return true;
      case ')':
        push_children(Kind::kTuple, {});
        return true;
      case ']':
        push_children(Kind::kList, {});
        return true;
      case '}':
        push_children(Kind::kDict, {});
        return true;
      case 't':
        push_children(Kind::kTuple, pop_to_mark());
        return true;
      case 'l':
        push_children(Kind::kList, pop_to_mark());
        return true;
      case 0x85:
      case 0x86:
      case 0x87:
        push_children(Kind::kTuple, pop_many(op - 0x84U));
        return true;
      case 'a':
        add(Kind::kList, pop_many(1));
        return true;
      case 'e':
        add(Kind::kList, pop_to_mark());
        return true;
      case 's':
        add(Kind::kDict, pop_many(2));
        return true;
      case 'u':
        add(Kind::kDict, pop_to_mark());
        return true;
      case '0':
        pop();
        return true;
      default:
        return false;
    }
  }

  // Adds to the list or dictionary on top.
  void add(Kind kind, const std::vector<uint32_t>& items) {
    Node& node = out_.nodes[top()];
    if (node.kind != kind) fail("items are added to what is no list or dictionary");
    if (kind == Kind::kDict && items.size() % 2 != 0) fail("a dictionary has a key without a value");
    node.children.insert(node.children.end(), items.begin(), items.end());
  }

  bool read_memo(unsigned char op) {
    switch (op) {
      case 'q':
        memo_[number<uint8_t>()] = top();
        return true;
      case 'r':
        memo_[number<uint32_t>()] = top();
        return true;
      case 0x94:
        memo_[static_cast<uint32_t>(memo_.size())] = top();
        return true;
      case 'h':
        recall(number<uint8_t>());
        return true;
      case 'j':
        recall(number<uint32_t>());
        return true;
      default:
        return false;
    }
  }

  void recall(uint32_t key) {
    const auto at = memo_.find(key);
    if (at == memo_.end()) fail("it recalls value " + std::to_string(key) + ", which it has not stored");
    stack_.push_back(at->second);
  }

  bool read_object(unsigned char op) {
    switch (op) {
      case 'c': {
        const std::string module = line();
        push_global(module, line());
        return true;
      }
      case 0x93: {  // STACK_GLOBAL
        const std::vector<uint32_t> names = pop_many(2);
        push_global(string_of(names[0]), string_of(names[1]));
        return true;
      }
      case 'R':
        reduce();
        return true;
      case 'b':  // BUILD: an OrderedDict's attributes (_metadata) say nothing about tensors
        pop();
        if (out_.nodes[top()].kind != Kind::kDict) fail("it sets attributes of what is no dictionary");
        return true;
      case 'Q':
        push_storage(pop());
        return true;
      default:
        return false;
    }
  }

  const std::string& string_of(uint32_t index) const {
    const Node& node = out_.nodes[index];
    if (node.kind != Kind::kString) fail("a name is no string");
    return node.text;
  }

  void push_global(const std::string& module, const std::string& name) {
    const std::string full = module + "." + name;
    if (full != kOrderedDict && full != kRebuildTensor && full != kRebuildParameter && find_storage(full) == nullptr) {
      throw Error(Errc::kRefused, "pickle: it refers to the global " + quoted(full) +
                                      ", which is not read: a pickle can run any program; expected tensors, "
                                      "dictionaries and plain values only");
    }
    push_text(Kind::kGlobal, full);
  }

  // ("storage", type, key, location, elements)
  void push_storage(uint32_t index) {
    const Node& tuple = out_.nodes[index];
    const bool fits = tuple.kind == Kind::kTuple && tuple.children.size() == 5 &&
                      out_.nodes[tuple.children[1]].kind == Kind::kGlobal &&
                      out_.nodes[tuple.children[4]].kind == Kind::kInt;
    const StorageType* type = fits ? find_storage(out_.nodes[tuple.children[1]].text) : nullptr;
    if (type == nullptr || string_of(tuple.children[0]) != "storage")
      fail("a storage is not described as torch does it");
    if (string_of(tuple.children[2]).size() > kMaxKey) fail("a storage's name is longer than any that torch writes");
    Node node;
    node.kind = Kind::kStorage;
    node.text = string_of(tuple.children[2]);
    node.dtype = type->dtype;
    node.integer = out_.nodes[tuple.children[4]].integer;
    push(std::move(node));
  }

  void reduce() {
    const std::vector<uint32_t> call = pop_many(2);
    if (out_.nodes[call[0]].kind != Kind::kGlobal || out_.nodes[call[1]].kind != Kind::kTuple)
      fail("it calls what is no function");
    const Node function = out_.nodes[call[0]];  // copies: pushing moves the nodes
    if (out_.nodes[call[1]].children.size() > kMaxArguments)
      fail("a call has more arguments than any that torch writes");
    const std::vector<uint32_t> arguments = out_.nodes[call[1]].children;
    if (function.text == kOrderedDict && arguments.empty()) {
      push_children(Kind::kDict, {});
    } else if (function.text == kRebuildTensor && (arguments.size() == 6 || arguments.size() == 7)) {
      push_tensor(arguments);
    } else if (function.text == kRebuildParameter && arguments.size() == 3 &&
               out_.nodes[arguments[0]].kind == Kind::kTensor) {
      stack_.push_back(arguments[0]);
    } else {
      fail("the arguments of " + function.text + " are not those that torch writes");
    }
  }

  // Bits that torch sets on a tensor: {"neg": True} means that its values are the negatives of those stored.
  void require_no_bits(uint32_t index) const {
    const Node& bits = out_.nodes[index];
    if (bits.kind == Kind::kNone || (bits.kind == Kind::kDict && bits.children.empty())) return;
    const bool named = bits.kind == Kind::kDict && out_.nodes[bits.children[0]].kind == Kind::kString;
    throw Error(Errc::kUnsupported,
                "pickle: a tensor is stored with " +
                    (named ? "the bit " + quoted(out_.nodes[bits.children[0]].text) : "metadata of its own") +
                    ", which changes its values; expected none: save it after resolve_neg() and resolve_conj()");
  }

  // (storage, offset, shape, strides, requires_grad, hooks, optional: bits)
  void push_tensor(const std::vector<uint32_t>& arguments) {
    const Node& storage = out_.nodes[arguments[0]];
    const Node& offset = out_.nodes[arguments[1]];
    if (storage.kind != Kind::kStorage || offset.kind != Kind::kInt) fail("a tensor is not described as torch does it");
    if (arguments.size() == 7) require_no_bits(arguments[6]);
    Node node;
    node.kind = Kind::kTensor;
    node.integer = offset.integer;
    node.dtype = storage.dtype;
    node.children = {arguments[0]};
    node.shape = integers(arguments[2]);
    node.strides = integers(arguments[3]);
    push(std::move(node));
  }

  std::vector<int64_t> integers(uint32_t index) const {
    const Node& tuple = out_.nodes[index];
    if (tuple.kind != Kind::kTuple) fail("a shape is no tuple");
    if (tuple.children.size() > 8)
      fail("a shape has " + std::to_string(tuple.children.size()) + " dimensions; expected at most 8");
    std::vector<int64_t> out;
    for (const uint32_t child : tuple.children) {
      if (out_.nodes[child].kind != Kind::kInt) fail("a shape holds what is no integer");
      out.push_back(out_.nodes[child].integer);
    }
    return out;
  }

  std::span<const std::byte> bytes_;
  size_t at_ = 0;
  Pickle out_;
  std::vector<uint32_t> stack_;
  std::unordered_map<uint32_t, uint32_t> memo_;
};

}  // namespace

const Node* Pickle::find(const Node& dictionary, const std::string& key) const {
  const Node* found = nullptr;
  if (dictionary.kind != Kind::kDict) return found;
  for (size_t i = 0; i + 1 < dictionary.children.size(); i += 2) {
    const Node& name = nodes[dictionary.children[i]];
    if (name.kind == Kind::kString && name.text == key) found = &nodes[dictionary.children[i + 1]];
  }
  return found;
}

Result<Pickle> parse_pickle(std::span<const std::byte> bytes) {
  try {
    return Machine(bytes).run();
  } catch (const Error& error) {
    return error;
  }
}

}  // namespace saif
