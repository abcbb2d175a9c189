// As much JSON as an exported file's metadata has: a value is what stands between two places of the text.

#pragma once

#include <cstdlib>
#include <string>
#include <vector>

namespace fastcam::host {

class Json {
  public:
    explicit Json(const std::string& text) : text_(&text), at_(0) { skip_space(at_); }

    bool is_null() const { return at_ == std::string::npos || text_->compare(at_, 4, "null") == 0; }
    bool is_text() const { return !is_null() && (*text_)[at_] == '"'; }
    bool is_list() const { return !is_null() && (*text_)[at_] == '['; }

    double number(double otherwise) const { return is_null() ? otherwise : std::strtod(text_->c_str() + at_, nullptr); }
    bool truth() const { return !is_null() && text_->compare(at_, 4, "true") == 0; }

    std::string text(const std::string& otherwise = "") const {
        if (!is_text()) return otherwise;
        std::string out;
        std::size_t at = at_;
        read_text(at, &out);
        return out;
    }

    // The value of a key of an object; null where there is none.
    Json operator[](const std::string& key) const {
        if (is_null() || (*text_)[at_] != '{') return nothing();
        for (std::size_t at = next(at_ + 1); at < text_->size() && (*text_)[at] == '"';) {
            std::string name;
            read_text(at, &name);
            at = next(at);
            if (name == key) return Json(text_, at);
            pass(at);
            at = next(at);
        }
        return nothing();
    }

    std::vector<Json> items() const {
        std::vector<Json> out;
        if (!is_list()) return out;
        for (std::size_t at = next(at_ + 1); at < text_->size() && (*text_)[at] != ']'; at = next(at)) {
            out.push_back(Json(text_, at));
            pass(at);
        }
        return out;
    }

  private:
    Json(const std::string* text, std::size_t at) : text_(text), at_(at) {}
    Json nothing() const { return Json(text_, std::string::npos); }

    void skip_space(std::size_t& at) const {
        while (at < text_->size() && std::string(" \t\r\n").find((*text_)[at]) != std::string::npos) ++at;
    }

    // Behind spaces, and a comma or colon.
    std::size_t next(std::size_t at) const {
        skip_space(at);
        if (at < text_->size() && ((*text_)[at] == ',' || (*text_)[at] == ':')) ++at;
        skip_space(at);
        return at;
    }

    static void put(unsigned code, std::string& out) {
        if (code < 0x80) {
            out += static_cast<char>(code);
        } else if (code < 0x800) {
            out += static_cast<char>(0xC0 | code >> 6);
            out += static_cast<char>(0x80 | (code & 63));
        } else if (code < 0x10000) {
            out += static_cast<char>(0xE0 | code >> 12);
            out += static_cast<char>(0x80 | (code >> 6 & 63));
            out += static_cast<char>(0x80 | (code & 63));
        } else {
            out += static_cast<char>(0xF0 | code >> 18);
            out += static_cast<char>(0x80 | (code >> 12 & 63));
            out += static_cast<char>(0x80 | (code >> 6 & 63));
            out += static_cast<char>(0x80 | (code & 63));
        }
    }

    void read_text(std::size_t& at, std::string* out) const {
        for (++at; at < text_->size() && (*text_)[at] != '"'; ++at) {
            char c = (*text_)[at];
            if (c != '\\' || ++at >= text_->size()) {
                *out += c;
                continue;
            }
            c = (*text_)[at];
            const std::size_t known = std::string("nrtbf").find(c);
            if (c == 'u') {
                unsigned code = hex(at);
                if (code >= 0xD800 && code < 0xDC00 && text_->compare(at + 1, 2, "\\u") == 0) {
                    at += 2;
                    code = 0x10000 + ((code - 0xD800) << 10) + (hex(at) - 0xDC00);
                }
                put(code, *out);
            } else {
                *out += known == std::string::npos ? c : "\n\r\t\b\f"[known];
            }
        }
        ++at;
    }

    // The four digits behind `at`, which then stands on the last of them.
    unsigned hex(std::size_t& at) const {
        const auto code = static_cast<unsigned>(std::strtoul(text_->substr(at + 1, 4).c_str(), nullptr, 16));
        at += 4;
        return code;
    }

    // Behind the value that begins there.
    void pass(std::size_t& at) const {
        int depth = 0;
        std::string ignored;
        while (at < text_->size()) {
            const char c = (*text_)[at];
            if (depth == 0 && (c == ',' || c == ']' || c == '}')) return;
            if (c == '"') {
                read_text(at, &ignored);
            } else {
                depth += c == '[' || c == '{' ? 1 : c == ']' || c == '}' ? -1 : 0;
                ++at;
            }
            if (depth == 0 && (c == '"' || c == ']' || c == '}')) return;
        }
    }

    const std::string* text_;
    std::size_t at_;
};

}  // namespace fastcam::host
